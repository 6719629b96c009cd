"""The page of a run (report.html), the table the terminal prints, and the comparison of several runs.

Everything here reads the run directory only (docs/artifacts.md); the gallery also reads images and, where
there are any, real masks through the data source.
"""

from tagmask.report.run.page import write_report
from tagmask.report.several.groups import compare_runs
from tagmask.report.several.score_table import ScoreTable
from tagmask.report.summary import SUMMARY_HEADER, summary_rows

__all__ = ["SUMMARY_HEADER", "ScoreTable", "compare_runs", "summary_rows", "write_report"]
