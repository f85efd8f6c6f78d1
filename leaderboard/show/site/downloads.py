"""All scores as files for programs: the same rows as JSON, CSV and Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmark.scoring.results import to_frame
from leaderboard.show.board_csv import safe_cell
from leaderboard.show.site.content import Content

FILES: Final = {
    "results.json": "one record for each result and metric, in full precision",
    "results.parquet": "the same, for pandas and its like",
    "results.csv": "the same, for a spreadsheet",
}


def write_downloads(content: Content, folder: Path) -> None:
    """Write them into a folder; every result is in them, those that tables leave out too."""
    results = [content.runs[run_id].result for run_id in sorted(content.runs)]
    frame = to_frame(results)
    frame.to_json(folder / "results.json", orient="records", lines=False, double_precision=15)
    frame.to_parquet(folder / "results.parquet", index=False)
    text = frame.map(safe_cell).to_csv(index=False, lineterminator="\n")
    (folder / "results.csv").write_text(text, encoding="utf-8", newline="\n")
