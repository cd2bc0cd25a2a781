"""Training programs that are known to be sick or healthy: the measure of the doctor."""

from benchmarks.diagnosis.corpus.program import PROGRAMS, Program
from benchmarks.diagnosis.corpus.running import Outcome, run

__all__ = ["PROGRAMS", "Outcome", "Program", "run"]
