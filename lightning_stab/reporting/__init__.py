"""What a run has left on disk, read back and drawn: event files and CSV logs in, HTML out."""

from lightning_stab.reporting.page import report_page
from lightning_stab.reporting.run import NoRunError, Run, read_run

__all__ = ["NoRunError", "Run", "read_run", "report_page"]
