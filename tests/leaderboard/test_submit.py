"""What a leaderboard takes in, and what it refuses; the results are real ones of the repository."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from benchmark.core import Metric
from benchmark.errors import SuperbError
from benchmark.metrics import score
from benchmark.scoring.results import (
    card_metrics,
    read_records,
    read_result,
    run_id,
    table_file,
    write_result,
)
from benchmark.scoring.statistics import interval_of, seed_std
from leaderboard.read.collect import collect
from leaderboard.submit import results_of, start, submit
from superb.cli import app
from superb.standard import standard

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


@pytest.fixture
def board(tmp_path):
    start(tmp_path / "board")
    return tmp_path / "board"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A real result, of two utterances a speaker."""
    path = sorted((RESULTS / "sid" / "hubert").glob("*.json"))[0]
    result, metric = read_result(path, history=False), Metric("accuracy", "higher")
    records = {seed: rows[::6] for seed, rows in read_records(path).items()}
    stacked = [row for rows in records.values() for row in rows]
    told = dataclasses.asdict(interval_of(stacked, metric, seeds=len(records)))
    by_seed = [score(rows, metric) for rows in records.values()]
    made = dataclasses.replace(
        result,
        metrics={"accuracy": {**told, "seed_std": seed_std(by_seed)}},
        per_seed=[
            {**entry, "metrics": {"accuracy": value}}
            for entry, value in zip(result.per_seed, by_seed, strict=True)
        ],
    )
    return write_result(tmp_path_factory.mktemp("small"), made, records).parents[2]


@pytest.fixture
def mine(small, tmp_path):
    """One sound result, as a folder."""
    shutil.copytree(small, tmp_path / "mine")
    (own,) = (tmp_path / "mine").rglob("*.json")
    return own


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def hand_in(path, board, **options):
    return submit(path, board, standard, **options)


def test_a_sound_result_is_copied_whole_and_once(mine, board):
    before = files(board)
    assert len(hand_in(mine.parents[2], board, check=True).taken) == 1
    assert files(board) == before  # --check writes nothing
    found = hand_in(mine.parents[2], board)
    assert [path.name for path in found.taken] == [mine.name]
    assert not found.refused
    (place,) = found.taken
    assert place == board / "results" / "sid" / "hubert" / mine.name
    assert place.read_bytes() == mine.read_bytes()
    assert table_file(place).read_bytes() == table_file(mine).read_bytes()
    assert collect(board / "results").problems == ()
    assert len(hand_in(mine, board).there) == 1


def test_heads_under_the_protocol_of_today_and_tasks_under_that_of_yesterday_are_known():
    heads = RESULTS.with_name("results-heads")
    earlier = Path(__file__).parent / "earlier"  # of FBANK, version 1 of mini
    paths = [*heads.rglob("*.json"), *RESULTS.glob("*/fbank/*.json"), *earlier.glob("*.json")]
    known = [(standard(result), result) for result in map(read_result, paths)]
    assert len({result.downstream["name"] for _, result in known}) > 10
    for expected, result in known:
        assert expected.protocol_sha256 == result.protocol["sha256"]
        assert expected.metrics == card_metrics(result)


def remade(path, tmp_path, change_records=None, identity=None, **changes):
    """A result that was put together again: all of its hashes fit."""
    result, records = read_result(path), read_records(path)
    if identity:
        whole = {**result.identity, **identity}
        changes |= {"identity": whole, "run_id": run_id(whole)}
    made = dataclasses.replace(result, **changes)
    if change_records:
        records = {seed: [*map(change_records, rows)] for seed, rows in records.items()}
    return write_result(tmp_path / "remade", made, records)


def with_score(result, **changes):
    return {"accuracy": {**result.metrics["accuracy"], **changes}}


REMADE = {
    "the score": (lambda r: {"metrics": with_score(r, value=99.0)}, "value is 99"),
    "the interval": (lambda r: {"metrics": with_score(r, low=40.0)}, "low is 40"),
    "speakers": (lambda r: {"metrics": with_score(r, clusters=999)}, "clusters is 999"),
    "a learning rate": (lambda r: {"learning_rate": 0.5}, "no head was trained to the end"),
    "a seed's score": (
        lambda r: {"per_seed": [{**entry, "metrics": {"accuracy": 99.0}} for entry in r.per_seed]},
        "by seed",
    ),
    "all answers": (
        lambda r: {
            "change_records": lambda row: dataclasses.replace(row, values={"accuracy": (1, 1)})
        },
        "does not follow",
    ),
    "an utterance": (
        lambda r: {"change_records": lambda row: dataclasses.replace(row, id="one")},
        "twice",
    ),
    "failed": (lambda r: {"status": "failed"}, "only finished"),
    "values of the protocol": (
        lambda r: {"protocol": {**r.protocol, "updates": 9_999}},
        "do not have the hash",
    ),
    "a protocol's name": (
        lambda r: {
            "protocol": {**r.protocol, "name": "superb"},
            "identity": {"protocol": {**r.identity["protocol"], "name": "superb"}},
        },
        "not those of protocol superb|not known",
    ),
    "a protocol of one's own": (
        lambda r: {
            "protocol": {**r.protocol, "name": "../mine"},
            "identity": {"protocol": {**r.identity["protocol"], "name": "../mine"}},
        },
        "unknown protocol",
    ),
    "the direction": (
        lambda r: {
            "downstream": {
                **r.downstream,
                "metrics": [{**r.downstream["metrics"][0], "direction": "lower"}],
            }
        },
        "not a metric of sid",
    ),
    "a task in a file": (
        lambda r: {
            "downstream": {**r.downstream, "name": "evil.py:Task"},
            "identity": {"downstream": {"name": "evil.py:Task", "version": 1}},
        },
        "no task that is known|unknown task",
    ),
    "an identity": (lambda r: {"identity": {}, "run_id": "0" * 16}, "run id"),
    "another encoder": (
        lambda r: {"upstream": {**r.upstream, "name": "../../wavlm"}},
        "in identity",
    ),
    "no licence": (lambda r: {"upstream": {**r.upstream, "licence": " "}}, "no licence"),
    "what it heard": (
        lambda r: {"upstream": {name: v for name, v in r.upstream.items() if name != "trained_on"}},
        "trained_on",
    ),
    "what it heard, in part": (
        lambda r: {"upstream": {**r.upstream, "trained_on": ["librispeech"]}},
        "leaves out what hubert is known to have heard: mini, mycroft-precise, picovoice",
    ),
    "the future": (lambda r: {"created": "2999-01-01T00:00:00+00:00"}, "in the future"),
    "weights that are no hash": (
        lambda r: {"encoder": {**r.encoder, "weights_sha256": "<b>"}},
        "no hash",
    ),
    "a time": (lambda r: {"created": "<b>now</b>"}, "no time"),
}


@pytest.mark.parametrize("what", REMADE)
def test_what_was_put_together_by_hand_is_refused(what, mine, board, tmp_path):
    before = files(board)
    change, why = REMADE[what]
    found = hand_in(remade(mine, tmp_path, **change(read_result(mine))), board)
    (told,) = found.refused
    assert re.search(why, told)
    assert "\n" not in told
    assert files(board) == before


def damage_text(path):
    path.write_bytes(path.read_bytes().replace(b"hubert", b"wavlm", 1))


def damage_table(path):
    table_file(path).write_bytes(b"")


def rename(path):
    table_file(path).rename(path.with_name("0123456789abcdef.utterances.csv.gz"))
    path.rename(path.with_name("0123456789abcdef.json"))


def link_out(path):
    outside = path.parents[3] / path.name
    path.rename(outside)
    path.symlink_to(outside)


def link_table(path):
    table = table_file(path)
    outside = path.parents[3] / table.name
    table.rename(outside)
    table.symlink_to(outside)


@pytest.mark.parametrize(
    "spoil", [damage_text, damage_table, lambda path: table_file(path).unlink(), rename, link_out,
              link_table]
)  # fmt: skip
def test_damaged_files_and_links_are_refused(spoil, mine, board):
    folder, before = mine.parents[2], files(board)
    spoil(mine)
    found = hand_in(folder, board)
    assert (len(found.refused), found.taken) == (1, ())
    assert files(board) == before


def test_one_run_has_one_result(mine, board, tmp_path):
    hand_in(mine, board)
    again = remade(mine, tmp_path, created="2026-11-28T00:00:00+00:00")
    before = files(board)
    (why,) = hand_in(again, board).refused
    assert "with other content" in why
    assert files(board) == before
    twice = tmp_path / "twice"
    for name in ("a", "b"):
        shutil.copytree(again.parent, twice / name)
    (tmp_path / "new").mkdir()
    start(tmp_path / "new")
    found = hand_in(twice, tmp_path / "new", check=True)
    assert (len(found.taken), len(found.refused)) == (1, 1)


def test_a_link_on_the_leaderboard_leads_nowhere(mine, board, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (board / "results" / "sid").symlink_to(outside)
    with pytest.raises(SuperbError, match="sid is a link"):
        hand_in(mine, board)
    assert not list(outside.iterdir())


def test_a_linked_folder_is_not_taken_for_results(mine, board, tmp_path):
    """A link to what was accepted would pass every check, and lead nowhere once it is merged."""
    hand_in(mine, board)
    proposed = tmp_path / "proposed"
    proposed.mkdir()
    (proposed / "results").symlink_to(board / "results")
    with pytest.raises(SuperbError, match="results is a link"):
        results_of(proposed)
    (proposed / "results").unlink()
    (proposed / "results").mkdir()
    (proposed / "results" / "sid").symlink_to(board / "results" / "sid")
    with pytest.raises(SuperbError, match="sid is a link"):
        hand_in(proposed / "results", board)


def test_the_command(mine, board, tmp_path):
    run = CliRunner().invoke
    good = run(app, ["submit", str(mine.parents[2]), "--to", str(board)])
    assert (good.exit_code, good.output.splitlines()[-1]) == (
        0,
        "1 taken, 0 there before, 0 refused",
    )
    damage_text(mine)
    bad = run(app, ["submit", str(mine.parents[2]), "--to", str(board), "--check"])
    assert bad.exit_code == 1
    assert "does not match its checksum" in bad.output
    for wrong in ([str(mine)], ["--init", str(board), "--check"]):
        assert isinstance(run(app, ["submit", *wrong]).exception, SuperbError)
    with pytest.raises(SuperbError, match="--init"):
        hand_in(mine, tmp_path)


def test_a_new_leaderboard_keeps_what_is_there(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    written = {path.relative_to(tmp_path).as_posix() for path in start(tmp_path)}
    assert (tmp_path / "README.md").read_text() == "mine"
    assert "README.md" not in written
    assert start(tmp_path) == []
    workflow = yaml.safe_load((tmp_path / ".github/workflows/leaderboard.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = "\n".join(step.get("run", "") for step in steps)
    assert "superb submit proposed/results --to accepted --check" in commands
    assert "superb site . --output public" in commands
    # a pull request from a stranger may write nothing, and what it says is no command
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in (workflow.get("on") or workflow[True])
    assert "${{" not in commands
