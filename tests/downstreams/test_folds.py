"""Cross-validation: every fold once in each role, speakers in one; from a manifest too."""

from collections import Counter

import pytest

from benchmark.errors import SuperbError
from downstreams.corpora import manifest
from downstreams.corpora.folds import rotated
from downstreams.er import Er


def test_each_fold_is_tested_once_and_chosen_on_once():
    fold_of = {f"u{i}": str(i % 5) for i in range(20)}
    folds = rotated("here", fold_of)
    assert list(folds) == ["0", "1", "2", "3", "4"]
    for test, roles in folds.items():
        own = Counter((fold_of[name], role) for name, role in roles.items())
        chosen = str((int(test) + 1) % 5)
        rest = {(name, "train"): 4 for name in folds if name not in (test, chosen)}
        assert own == {(test, "test"): 4, (chosen, "valid"): 4, **rest}


@pytest.mark.parametrize("folds", ["", "aab"])
def test_two_folds_are_too_few(folds):
    with pytest.raises(SuperbError, match="there must be 3 or more"):
        rotated("here", {f"u{i}": name for i, name in enumerate(folds)})


ROWS = [
    (f"{fold}-{label}-{i}.wav", f"s{fold}", label, fold)
    for fold in "abc" for label in ("neu", "ang") for i in range(2)
]  # fmt: skip


@pytest.fixture
def table(tmp_path):
    def write(rows, header="audio,speaker,emotion,fold"):
        for row in rows:
            (tmp_path / row[0]).write_bytes(b"RIFF")
        path = tmp_path / "table.csv"
        path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
        return path

    return write


def test_a_manifest_may_have_folds_in_place_of_splits(table):
    corpus = manifest.load(table(ROWS), Er.card)
    assert list(corpus.folds) == ["a", "b", "c"]
    parts = corpus.partitions()
    assert {u.id[0] for u in parts["a"].split("test")} == {"a"}
    assert {u.id[0] for u in parts["a"].split("valid")} == {"b"}
    assert {u.id[0] for u in parts["c"].split("train")} == {"b"}
    assert corpus.note == ""


def test_split_decides_where_there_are_both(table):
    rows = [(*row, {"a": "train", "b": "valid", "c": "test"}[row[3]]) for row in ROWS]
    corpus = manifest.load(table(rows, "audio,speaker,emotion,fold,split"), Er.card)
    assert corpus.folds == {}
    assert "column fold not used" in corpus.note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda row: (row[0], "same", *row[2:]),
            "fold a: speakers of test who are in train or valid too: 'same'",
        ),
        (lambda row: (*row[:3], ""), "empty 'fold': line 2"),
        (lambda row: (*row[:3], "ab"[row[3] == "a"]), "there must be 3 or more"),
        (
            lambda row: (*row[:2], f"{row[2]}{row[3] * (row[3] == 'a')}", row[3]),
            r"fold a: labels that train does not have: 'neua' \(test\)",
        ),
    ],
)
def test_folds_that_are_none_are_refused(table, change, message):
    with pytest.raises(SuperbError, match=message):
        manifest.load(table([change(row) for row in ROWS]), Er.card)


def test_folds_of_unknown_speakers_are_noted(table):
    corpus = manifest.load(table([(row[0], "", *row[2:]) for row in ROWS]), Er.card)
    assert corpus.note == "speakers are not known: nothing tells whether folds share some"


def test_speakers_are_told_apart_as_they_are_read(table):
    """White space at the end is none, so that this is one person in two folds."""
    rows = [(row[0], "s1 " if row[3] == "b" else "s1", *row[2:]) for row in ROWS if row[3] < "c"]
    rows += [row for row in ROWS if row[3] == "c"]
    with pytest.raises(SuperbError, match="in train or valid too: 's1'"):
        manifest.load(table(rows), Er.card)
