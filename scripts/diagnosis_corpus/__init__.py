"""Training programs that are known to be sick or healthy: the measure of the doctor."""

from diagnosis_corpus.program import PROGRAMS, Program
from diagnosis_corpus.running import Outcome, run

__all__ = ["PROGRAMS", "Outcome", "Program", "run"]
