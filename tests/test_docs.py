"""Documents must not promise what the program does not do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from benchmark.progress import Progress
from leaderboard.compare.encoders import Comparison, compare
from leaderboard.compare.twins import compare_twins
from leaderboard.read.collect import collect
from leaderboard.show.numbers import difference_text, score_text
from leaderboard.show.render import render
from superb.cli import app
from superb.compose import prepare_tasks
from superb.run_files import read_run_file
from superb.running import run_specs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CARDS = sorted((ROOT / "downstreams").rglob("*.md"))


def documented_commands() -> list[str]:
    """Every `superb …` line in a fenced shell block."""
    commands = []
    for page in PAGES + CARDS:
        for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                found = re.search(r"(?:^|\s)superb (?!-)(.*)", line.split("#")[0].strip())
                if found:
                    commands.append(found[1].strip())
    return commands


def test_there_are_documented_commands():
    assert len(documented_commands()) > 10


@pytest.mark.parametrize("command", sorted(set(documented_commands())))
def test_every_documented_command_is_understood(command):
    """Names of commands and options, and the number of arguments; nothing is run."""
    context = None
    group = get_command(app)
    words = shlex.split(command)
    while hasattr(group, "commands") and words and words[0] in group.commands:
        group, words = group.commands[words[0]], words[1:]
    context = group.make_context("superb", words, resilient_parsing=False)
    assert context is not None


@pytest.mark.parametrize("page", PAGES + CARDS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES + CARDS, ids=lambda page: page.name)
def test_nothing_is_left_to_fill_in(page):
    assert not re.search(r"@[A-Z]+@|TODO|FIXME", page.read_text())


def test_the_experiment_of_the_page_runs(tmp_path, tones, quick, bands_file):
    """As written, but for its encoders, which would take minutes, and a protocol of seconds."""
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "experiment.toml").write_text(example, encoding="utf-8")
    names = iter(["studio", "street", "car"] * 100)
    rows = [
        re.sub("\t(train|test)\t", lambda _: f"\t{next(names)}\t", row)
        for row in tones.read_text(encoding="utf-8").replace("\tvalid\t", "\tunused\t").splitlines()
    ]
    sounds = [f"{tones.parent}/{row}" for row in rows[1:]]
    (tmp_path / "my_words.tsv").write_text("\n".join([rows[0], *sounds]), encoding="utf-8")
    asked = read_run_file(tmp_path / "experiment.toml")
    tasks = [prepare_tasks(own.spec(), tmp_path, Progress(quiet=True)) for own in asked]
    assert [list(own) for own in tasks] == [
        ["asr", "asr-transducer"],
        ["ks-2min", "ks", "sid-2min", "sid"],
        ["ks"],
    ]
    typed = {"upstream": [f"{bands_file}:Bands"], "protocol": str(quick), "seeds": 1}
    own = asked[2].overruled({**typed, "cache-dir": str(tmp_path / "cache")})
    ((last, whole),) = run_specs([own.spec()], progress=Progress(quiet=True))
    assert last.corpus["name"] == whole.corpus["name"] == "my-words"
    assert "train: studio+street" in last.corpus["note"]
    assert len(list((tmp_path / "results").rglob("*.json"))) == 2


def test_the_tables_of_the_bundled_encoders_are_those_of_the_result_files():
    page = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")
    tables = render(collect(ROOT / "docs" / "results"), "markdown").split("\n## ")[1:]
    assert len(tables) == 3
    for table in tables:
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len(rows) > 2
        assert "\n".join(rows) in page, table.splitlines()[0]


def test_what_encoders_have_over_their_twins_is_that_of_the_result_files():
    """README: a row for each encoder, with three scores by the weighted sum and three gains."""
    folder = ROOT / "docs" / "results"
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    page = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")
    twins = compare_twins(folder).pairs
    names = list(dict.fromkeys(entry.b for entry in twins))
    assert set(names) == {"hubert", "wav2vec2", "cpc", "apc"}
    for entry in (*twins, *compare(folder, ["fbank", *names]).pairs):
        assert f"| {gain(entry)} |" in page
    for name in names:
        (row,) = (line for line in readme if _is_of(line, name))
        own = {entry.table.downstream: entry for entry in twins if entry.b == name}
        shown = []
        for task in ("asr", "ks", "sid"):
            score = own[task].b_cell.score
            assert score is not None
            shown += [score_text(score, "%"), gain(own[task])]
        assert [part.strip() for part in row.split("|")[2:-1]] == shown


def test_readme_has_the_scores_of_what_encoders_are_compared_with():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    tables = {table.downstream: table for table in collect(ROOT / "docs" / "results").tables}
    for name in ("fbank", "untrained:hubert", "untrained:cpc"):
        (row,) = (line for line in lines if _is_of(line, name))
        shown = []
        for task in ("asr", "ks", "sid"):
            (own,) = (row for row in tables[task].rows if row.upstream == name)
            score = own.cells["weighted-sum"].score
            assert score is not None
            shown.append(score_text(score, "%"))
        assert [part.strip() for part in row.split("|")[2:-1:2]] == shown


def _is_of(line: str, name: str) -> bool:
    """A row of the table of three tasks, each with its gain."""
    return line.startswith(f"| `{name}`") and line.count("|") == 8


def gain(entry: Comparison) -> str:
    """A difference as tables have it, with a star where the two can be told apart."""
    star = r" \*" if entry.better else ""
    return difference_text(entry.pair.difference, "%") + star
