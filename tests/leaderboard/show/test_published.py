import csv
import io
import re

import pytest

from leaderboard.read.collect import arrange
from leaderboard.read.published import load_published
from leaderboard.show.render import render


@pytest.mark.parametrize("format", ["terminal", "markdown", "latex", "html"])
def test_published_stands_apart_and_ranks_nobody(result, format):
    board = arrange([result("hubert-base", task, "last", 50.0) for task in ("ks", "sid")])
    alone = render(board, format, width=200)
    both = render(board, format, width=200, with_published=True)
    # Nothing that was measured changes; the published table follows all of it.
    measured = alone[: alone.rindex("95")]
    assert both.startswith(measured)
    rest = both[len(measured) :]
    assert "Published by others: not measured here, not ranked" in rest
    assert "last (inferred)" in rest
    assert rest.index("not ranked") < rest.index("64.84")
    assert "81.42" not in alone


def test_every_published_value_carries_the_mark_of_its_source(result):
    board = arrange([result("a", "ks", "last", 50.0)])
    text = render(board, "markdown", with_published=True)
    part = text[text.index("## Published") :]
    rows = [line for line in part.splitlines() if line.startswith("| hubert_base ")]
    values = re.findall(r"(\d+\.\d\d)(\\\[[a-z]\\\])?", rows[0].split("M |")[1])
    assert len(values) == 24
    assert all(mark for _, mark in values)
    marks = {mark for _, mark in values}
    assert all(f"- {mark} superbbenchmark" in part for mark in marks)


def test_published_in_csv_are_rows_of_their_own_kind(result):
    board = arrange([result("a", "ks", "last", 50.0)])
    rows = list(csv.DictReader(io.StringIO(render(board, "csv", with_published=True))))
    published = [row for row in rows if row["kind"] == "published"]
    assert len(published) == sum(figure.figure == "score" for figure in load_published())
    assert all(row["source"] and not row["low"] and not row["ranks"] for row in published)
    assert {row["kind"] for row in rows} == {"measured", "published"}
