"""The report of a run: one HTML file that needs nothing else, and its figures beside it."""

from xctpipe.report.page import write_report

__all__ = ["write_report"]
