import dataclasses
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmark.core import Record
from benchmark.errors import SuperbError
from benchmark.scoring.results import run_id, write_result
from leaderboard.compare.causes import causes
from leaderboard.compare.difference import pair_results
from leaderboard.show.causes import show_causes
from superb.cli import app


@pytest.fixture
def two(result, tmp_path):
    """Two runs of one encoder that differ in a value of the protocol, a package and two answers."""

    def write(name, answers, **changes):
        made = dataclasses.replace(result("hubert", "ks", "last", 50.0, seeds=(0,)), **changes)
        identity = {**made.identity, "protocol": {"name": "superb", "version": 1, "sha256": name}}
        made = dataclasses.replace(made, identity=identity, run_id=run_id(identity))
        rows = [
            Record(f"u{n}", (f"s{n % 4}",), "on", answer, {"accuracy": (int(answer == "on"), 1)})
            for n, answer in enumerate(answers)
        ]
        return write_result(tmp_path / name, made, {0: rows})

    rules = {"name": "superb", "version": 1, "head": {"hidden": 64}}
    return (
        write("a", ["on"] * 8, protocol=rules, provenance={"packages": {"torch": "2.11.0"}}),
        write(
            "b",
            ["on"] * 6 + ["[red]off[/]", "<b>up\x1b[31m</b>"],
            protocol={**rules, "head": {"hidden": 128}, "accumulate": 1, "name": "mine"},
            provenance={"packages": {"torch": "2.12.0"}},
        ),
    )


def test_what_differs_and_what_of_it_counts(two):
    found = causes(*two)
    told = {one.name: (one.a, one.b, one.effect) for one in found.apart}
    assert told["protocol head.hidden"] == ("64", "128", "yes")
    assert told["packages.torch"] == ("2.11.0", "2.12.0", "rounding")
    assert "protocol accumulate" not in told  # 1 is what it is without it
    assert found.apart[0].effect == "yes"
    assert [(one.utterance, one.a, one.b) for one in found.changed] == [("u6", 1, 0), ("u7", 1, 0)]
    assert found.shared == 8
    with pytest.raises(SuperbError):  # under different protocols compare refuses
        pair_results(*two)
    assert found.pair is not None
    assert found.pair.difference.value == pytest.approx(-25)


def test_nothing_differs(two):
    found = causes(two[0], two[0])
    assert (found.apart, found.changed) == ((), ())
    assert found.pair is not None
    assert found.pair.identical


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("12", {"upstream.fingerprint": "yes", "encoder.weights_sha256": "yes"}),
        ("11", {"upstream.fingerprint": "maybe"}),
        ("1-", {"upstream.fingerprint": "yes"}),
    ],
)
def test_the_same_weights_by_other_code_may_change_a_score(result, tmp_path, weights, told):
    paths = [
        write_result(
            tmp_path / mark,
            result("hubert", "ks", "last", 50.0, fingerprint=mark, weights=own.strip("-") * 64),
            {0: [Record("u", ("s",), "on", "on", {"accuracy": (1, 1)})]},
        )
        for mark, own in zip("ab", weights, strict=True)
    ]
    assert {one.name: one.effect for one in causes(*paths).apart} == told


def test_another_metric_is_not_paired_but_shown(two, result, tmp_path):
    """As after a task was revised."""
    made = result("hubert", "ks", "last", 50.0, seeds=(0,), version=2)
    metrics = [{**own, "name": "f1"} for own in made.downstream["metrics"]]
    made = dataclasses.replace(
        made,
        downstream={**made.downstream, "metrics": metrics},
        metrics={"f1": made.metrics["accuracy"]},
    )
    rows = [Record(f"u{n}", (f"s{n % 4}",), "on", "on", {"f1": (1, 1)}) for n in range(8)]
    found = causes(two[0], write_result(tmp_path / "revised", made, {0: rows}))
    assert found.pair is None
    assert (found.shared, found.changed) == (0, ())


def test_other_seeds_are_not_paired_but_shown(save, result):
    found = causes(save("a", "ks", "last", 50.0), save("a", "ks", "last", 50.0, seeds=(0,)))
    assert found.pair is None
    assert "seeds" in found.unpaired
    assert found.shared == 12


def test_it_fits_a_terminal_and_steers_nothing(two, capsys):
    show_causes(causes(*two), Console(width=80, emoji=False), 5)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 90  # sentences are left whole
    table = text.split("what differs")[1].split("\nyes:")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "[red]off[/]" in text
    assert "\x1b" not in text


def test_the_command(two, save):
    found = CliRunner().invoke(app, ["diff", *map(str, two), "--json"])
    assert json.loads(found.output)["utterances"] == 8
    other = save("hubert", "sid", "last", 50.0)
    assert isinstance(
        CliRunner().invoke(app, ["diff", str(two[0]), str(other)]).exception, SuperbError
    )
    gone = CliRunner().invoke(app, ["diff", str(two[0]), str(Path("gone.json"))])
    assert isinstance(gone.exception, SuperbError)
