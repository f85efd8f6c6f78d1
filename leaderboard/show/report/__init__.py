"""One HTML file that shows a folder of results: it needs no network and no other file."""

from leaderboard.show.report.page import asset, build_report, write_report

__all__ = ["asset", "build_report", "write_report"]
