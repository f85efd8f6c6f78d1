"""Documents must not promise what the program does not do."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from benchmark.progress import Progress
from leaderboard.read.collect import collect
from leaderboard.show.numbers import score_text
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


def test_the_tables_of_all_tasks_are_those_of_the_result_files():
    page = (ROOT / "docs" / "pretraining.md").read_text(encoding="utf-8")
    tables = render(collect(ROOT / "docs" / "results"), "markdown").split("\n## ")[1:]
    assert len(tables) == 9
    for table in tables:
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len(rows) > 2
        assert "\n".join(rows) in page, table.splitlines()[0]


@pytest.mark.parametrize("page", ["README.md", "docs/pretraining.md"])
def test_tables_of_three_tasks_are_those_of_the_result_files(page):
    """A row for each encoder: ASR, KS and SID, weighted sum."""
    board = collect(ROOT / "docs" / "results")
    scores: dict[str, list[str]] = {}
    for task in ("asr", "ks", "sid"):
        (table,) = (table for table in board.tables if table.downstream == task)
        for row in table.rows:
            cell = row.cells.get("weighted-sum")
            assert cell is not None
            assert cell.score is not None
            scores.setdefault(row.upstream, []).append(score_text(cell.score, "%"))
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    for name, texts in scores.items():
        (found,) = (
            line for line in lines if line.startswith(f"| `{name}` |") and line.count("|") == 6
        )
        assert [part.strip() for part in found.split("|")[3:6]] == texts
