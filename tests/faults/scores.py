"""Faults of what is scored, of result files and of their tables."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmark.core import Metric, Record
from benchmark.scoring.outcome import plain
from benchmark.scoring.results import (
    Result,
    read_result,
    result_path,
    run_id,
    utterances_path,
    write_result,
)
from benchmark.scoring.statistics import interval_of
from tests.faults.case import Answer, fault, superb

FORMATS = ("terminal", "markdown", "latex", "html", "csv")
CREATED = "2026-01-02T03:04:05+00:00"


# Made-up results --------------------------------------------------------------------------------


def result(
    folder: Path,
    upstream: str,
    *,
    layer: str = "weighted-sum",
    speakers: int = 10,
    each: int = 4,
    wrong: int = 3,
    words: int = 1,
    source: str = "",
    weights: str = "",
    task: str = "ks",
    channel: int | None = None,
) -> Path:
    """Write what a run of one seed on so many test speakers would; every `wrong`th answer is."""
    metric = Metric("wer", "lower") if task == "asr" else Metric("accuracy", "higher")
    records = [
        Record(
            id=f"s{speaker}-{take}",
            clusters=(f"s{speaker}",),
            reference="on",
            hypothesis="on" if (speaker * each + take) % wrong else "off",
            values={
                metric.name: (
                    words * int(((speaker * each + take) % wrong == 0) == (task == "asr")),
                    1,
                )
            },
        )
        for speaker in range(speakers)
        for take in range(each)
    ]
    found = interval_of(records, metric)
    identity: dict[str, Any] = {
        "upstream": {"name": upstream, "fingerprint": weights or f"{upstream}-weights"},
        "downstream": {"name": task, "version": 1},
        "corpus": {"name": "own", "sha256": "c0" * 32},
        "protocol": {"name": "quick", "version": 1, "sha256": "ab" * 32},
        "layer": layer,
        "seeds": [0],
    }
    if channel is not None:
        identity["channel"] = channel
    score: Any = {**asdict(found), "seed_std": None}
    made = Result(
        run_id=run_id(identity),
        status="finished",
        created=CREATED,
        identity=identity,
        upstream={"name": upstream, "layers": 13, "source": source, "trained_on": []},
        downstream=plain({"name": task, "title": "", "version": 1, "metrics": [asdict(metric)]}),
        corpus={"name": "own", "sha256": "c0" * 32},
        protocol={"name": "quick", "version": 1},
        layer=layer,
        seeds=[0],
        metrics={metric.name: score},
        learning_rate=0.001,
        learning_rate_at_edge=False,
        learning_rate_curve=[],
        per_seed=[],
        history=[],
        layer_weights=None,
        layer_norms=None,
        skipped_audio=[],
        warnings=[],
        timings={},
        encoder={},
        provenance={},
    )
    return write_result(folder, made, {0: records})


def edit(path: Path) -> None:
    """Change the score in a result file by hand."""
    text = path.read_text()
    path.write_text(text.replace('"value": ', '"value": 1', 1))


def table(folder: Path, format: str = "terminal") -> Answer:
    answer = superb("leaderboard", folder, "--format", format)
    assert answer.code == 0, answer
    return answer


def measured(folder: Path) -> list[dict[str, str]]:
    """The rows of the leaderboard's CSV."""
    return list(csv.DictReader(io.StringIO(table(folder, "csv").out)))


# Intervals --------------------------------------------------------------------------------------


@fault("a test set of three speakers", "the score; in the place of an interval: 3 speakers")
def three_speakers(folder: Path) -> None:
    for layer in ("last", "weighted-sum"):
        result(folder, "ours", layer=layer, speakers=3, task="asr")
        result(folder, "other", layer=layer, speakers=3, wrong=4, task="asr")
    for format in FORMATS:
        shown = table(folder, format).out.replace("\\", "")
        assert "33.3" in shown, shown
        assert not re.search(r"33\.3 \[[\d.]+, ", shown), shown
        assert format == "csv" or "[3 speakers]" in shown.replace("{[}", "[").replace("{]}", "]")
    assert {(row["low"], row["high"]) for row in measured(folder)} == {("", "")}
    assert superb("export", "csv", folder).out.count(",,0.95,3,") == 4
    card = superb("export", "model-card", folder, "-u", "ours").out
    assert "no interval: 3 speakers" in " ".join(card.split()), card
    assert "low" not in card
    page = folder / "report.html"
    assert superb("report", folder, "-o", page, "--no-audio").code == 0
    assert "[3 speakers]" in page.read_text()
    assert 'class="reach"' not in page.read_text()
    assert "[3 speakers]" in superb("layers", folder).out


@fault("two encoders compared on three speakers", "the difference; no interval, no test, and why")
def compared_on_three(folder: Path) -> None:
    result(folder, "ours", speakers=3, each=60)
    result(folder, "other", speakers=3, each=60, wrong=2)
    shown = superb("compare", "ours", "other", folder)
    assert shown.code == 0, shown
    text = " ".join(shown.out.split())
    assert "-16.7 [3 speakers]" in text, text
    assert "too few for an interval or a test" in text
    found = json.loads(superb("compare", "ours", "other", folder, "--json").out)["comparisons"][0]
    nothing = (found["p_value"], found["p_value_holm"], found["check_p_value_holm"],
               found["detectable"], found["better"])  # fmt: skip
    assert nothing == (None,) * 5, found
    assert found["difference"]["low"] is found["difference"]["high"] is None
    assert round(found["difference"]["value"], 1) == -16.7


@fault("four words, nine errors in every other one", "no interval that reaches beyond 1000 %")
def absurd_width(folder: Path) -> None:
    path = result(folder, "ours", speakers=4, each=1, wrong=2, words=9, task="asr")
    high = read_result(path).metrics["wer"]["high"]
    assert high > 1000
    assert "[beyond 1000 %]" in table(folder).out
    assert f"{high:.1f}" not in table(folder).out


@fault("four speakers and more", "an interval, as before")
def four_speakers(folder: Path) -> None:
    path = result(folder, "ours", speakers=4, each=20)
    score = read_result(path).metrics["accuracy"]
    text = f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]"
    assert text in table(folder).out


# Names ------------------------------------------------------------------------------------------


@fault(
    "runA/checkpoint-1000 and runB/checkpoint-1000",
    "called so wherever they are shown; one name and no path: told by their hash",
)
def same_folder_name(folder: Path) -> None:
    for run in ("runA", "runB"):
        for layer in ("last", "weighted-sum"):
            result(folder / "new", "checkpoint-1000", layer=layer, weights=f"{run}-weights",
                   source=f"/exp/{run}/checkpoint-1000")  # fmt: skip
        result(folder / "old", "checkpoint-1000", weights=f"{run}-weights")
        result(folder / "same", "last", weights=f"{run}-weights", source="exp/last/")
    for run in ("runA", "runB"):
        for format in FORMATS:
            assert f"{run}/checkpoint-1000" in table(folder / "new", format).out
        assert f"checkpoint-1000 @{run}-wei" in table(folder / "old").out
        assert f"last @{run}-wei" in table(folder / "same").out
        assert f"{run}/checkpoint-1000" in superb("layers", folder / "new").out
    names = ("runA/checkpoint-1000", "runB/checkpoint-1000")
    assert superb("compare", *names, folder / "new").code == 0
    assert superb("export", "model-card", folder / "new", "-u", names[0]).code == 0
    refusal = superb("compare", "checkpoint-1000", names[1], folder / "new")
    assert refusal.code == 2
    assert names[0] in refusal.words


@fault("names with markup, escape sequences or path separators", "shown as they are, harmless")
def hostile_names(folder: Path) -> None:
    names = ("../../etc/[bold]x[/]", "a\x1b[2J\x07b", "<script>alert(1)</script>", "=1+1", "a|b")
    for name in names:
        path = result(folder, name)
        assert path.resolve().is_relative_to(folder.resolve()), path
    for format in FORMATS:
        shown = table(folder, format).out
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert format != "html" or "<script>" not in shown
    assert "[bold]x[/]" in table(folder).out
    assert "\\x1b[2J" in table(folder).out
    rows = [row["upstream"] for row in measured(folder)]
    assert "'=1+1" in rows


@fault("names that differ by capitals alone, on any disk", "two rows, two files")
def capitals(folder: Path) -> None:
    paths = [result(folder, "hubert"), result(folder, "HuBERT")]
    assert len({str(path).lower() for path in paths}) == 2
    assert {row["upstream"] for row in measured(folder)} == {"hubert", "HuBERT"}


# Files ------------------------------------------------------------------------------------------


@fault("a result file edited by hand", "left out, and named: on standard error where not in tables")
def edited(folder: Path) -> None:
    for upstream in ("ours", "other"):
        for layer in ("last", "weighted-sum"):
            result(folder, upstream, layer=layer)
    bad = result(folder, "third")
    edit(bad)
    page = folder / "report.html"
    for words in (
        ("leaderboard", folder, "--format", "csv"),
        ("leaderboard", folder, "--format", "csv", "-o", folder / "table.csv"),
        ("compare", "ours", "other", folder, "--json"),
        ("export", "csv", folder),
        ("export", "model-card", folder, "-u", "ours"),
        ("report", folder, "-o", page, "--no-audio"),
    ):
        answer = superb(*words)
        assert answer.code == 0, answer
        assert bad.name in answer.err, (words, answer)
        assert "checksum" in answer.err, answer
        assert not re.search(r"[\",]third[\",]", answer.out), answer
    for words in (
        ("leaderboard", folder),
        ("layers", folder),
        ("compare", "ours", "other", folder),
    ):
        shown = "".join(superb(*words).out.split())  # however it was wrapped
        assert bad.name in shown, words


@fault("results of one channel beside those of the mean", "a table of their own; not compared")
def channels(folder: Path) -> None:
    result(folder, "one")
    result(folder, "two", channel=0)
    shown = table(folder).out
    assert "(c0c0c0c0), protocol" in shown, shown
    assert "(c0c0c0c0, channel 0), protocol" in shown, shown
    answer = superb("compare", "one", "two", folder)
    assert answer.code == 2, answer
    assert "channel" in answer.err, answer


@fault("a result with NaN as its score", "left out, and named")
def nan_score(folder: Path) -> None:
    result(folder, "ours")
    bad = result(folder, "third")
    text = re.sub(r'"value": [\d.]+', '"value": NaN', bad.read_text(), count=1)
    bad.write_text(text)
    answer = table(folder, "csv")
    assert bad.name in answer.err, answer
    assert "third" not in answer.out
    assert "nan" not in answer.out.lower()


@fault("one result in two files", "counted once; the copy is named")
def copied(folder: Path) -> None:
    path = result(folder, "ours")
    result(folder, "other")
    (folder / "backup").mkdir()
    for file in (path, utterances_path(path)):
        shutil.copy(file, folder / "backup")
    assert [row["upstream"] for row in measured(folder)].count("ours") == 1
    assert "another copy" in table(folder).out
    compared = superb("compare", "ours", "other", folder)
    assert compared.code == 0
    assert "holds the same run" in compared.out


@fault("the file of another run under the name of one", "run again, never taken for it")
def renamed(folder: Path) -> None:
    from benchmark.scoring.results import find_result

    path, other = result(folder, "ours"), result(folder, "ours", layer="last")
    ids = (path.stem, other.stem)
    shutil.copy(path, other)
    shutil.copy(utterances_path(path), utterances_path(other))
    assert result_path(folder, "ks", "ours", ids[1]) == other
    assert find_result(folder, "ks", "ours", ids[1]) is None
    assert find_result(folder, "ks", "ours", ids[0]) is not None


@fault("a folder of results with other files and folders in it", "they are named; the rest counts")
def other_files(folder: Path) -> None:
    result(folder, "ours")
    (folder / "notes").mkdir()
    (folder / "notes" / "todo.json").write_text('{"buy": "milk"}')
    (folder / "notes" / "list.json").write_text("[1, 2]")
    (folder / "notes" / "readme.txt").write_text("mine")
    (folder / "odd.json").mkdir()
    answer = table(folder, "csv")
    assert "ours" in answer.out
    for name in ("todo.json", "list.json", "odd.json"):
        assert name in answer.err, answer
    assert "readme" not in answer.err


@fault("the utterances of a result are gone or changed", "no comparison; the score still stands")
def utterances_changed(folder: Path) -> None:
    path = result(folder, "ours")
    result(folder, "other")
    lines = utterances_path(path).read_text().splitlines(keepends=True)
    utterances_path(path).write_text("".join(lines[:-1]))
    refusal = superb("compare", "ours", "other", folder)
    assert refusal.code == 2
    assert utterances_path(path).name in refusal.words
    assert {row["upstream"] for row in measured(folder)} == {"ours", "other"}


@fault("a result of before, over few speakers", "read, ranked and shown like a new one")
def old_result(folder: Path) -> None:
    path = result(folder, "ours", speakers=2)
    old = read_result(path)
    assert old.metrics["accuracy"]["high"] > old.metrics["accuracy"]["low"]
    write_result(folder, replace(old, schema=2), {0: []})
    assert "[2 speakers]" in table(folder).out
    assert measured(folder)[0]["clusters"] == "2"
