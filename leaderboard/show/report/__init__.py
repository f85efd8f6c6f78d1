"""One HTML file that shows a folder of results: it needs no network and no other file."""

from leaderboard.show.report.page import build_report, write_report

__all__ = ["build_report", "write_report"]
