"""The catalogue is read strictly: every fault is named, with its row."""

from __future__ import annotations

import pytest

from benchmark.errors import SuperbError
from upstreams.catalogue import read_catalogue

GOOD = """
[papers]
some = { text = "Someone, 2020", year = 2020 }
[corpora]
both = ["a", "b"]
[notes]
shared = "said of many rows"
[upstreams."mine.en"]
family = "predictive"
layers = 2
dim = 8
hop_samples = 320
parameters = 0
paper = "some"
checkpoint = "org/mine"
"""


@pytest.fixture
def read(tmp_path):
    def make(text):
        path = tmp_path / "catalogue.toml"
        path.write_text(text)
        return read_catalogue(path)

    return make


def test_defaults(read):
    (name, entry), *others = read(GOOD).items()
    assert (name, others) == ("mine.en", [])
    assert (entry.paper, entry.year) == ("Someone, 2020", 2020)
    assert (entry.revision, entry.licence, entry.note, entry.architecture) == ("", "", "", "")
    assert entry.trained_on == frozenset()
    assert entry.loads


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('trained_on = "undisclosed"', "trained_on", None),
        ("trained_on = []", "trained_on", frozenset()),
        ('trained_on = ["c"]', "trained_on", {"c"}),
        ('trained_on = "both"', "trained_on", {"a", "b"}),
        ('note = "shared"', "note", "said of many rows"),
        ('note = "of this row alone"', "note", "of this row alone"),
    ],
)
def test_shared_values_and_own_ones(read, line, field, value):
    assert getattr(read(GOOD + line)["mine.en"], field) == value


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("dim = 8", "", "dim missing"),
        ("dim = 8", 'dim = "8"', "dim must be a size; got '8'"),
        ("dim = 8", "dim = true", "dim must be a size; got True"),
        ("layers = 2", "layers = 0", "layers must be a size; got 0"),
        ('"org/mine"', "3", "checkpoint must be text; got 3"),
        ("dim = 8", "dim = 8\nwidth = 8", "no such key: width; there are family,"),
        ('"predictive"', '"clever"', "family is one of contrastive,.*got 'clever'"),
        ('"some"', '"other"', "paper is one of some; got 'other'"),
        ("dim = 8", 'dim = 8\narchitecture = "a.b"', "architecture is written module:attribute"),
        ("dim = 8", 'dim = 8\nlayout = "a.b:c.d"', "layout is written module:attribute"),
        ("dim = 8", 'dim = 8\ntarget = "a b:c"', "target is written module:attribute"),
        ("dim = 8", 'dim = 8\nnote = "shred"', "note is a sentence, or one of shared; got 'shred'"),
        ("dim = 8", 'dim = 8\ntrained_on = "bth"', ".*'undisclosed' or one of both; got 'bth'"),
        ("dim = 8", "dim = 8\ntrained_on = [1]", r"trained_on is a list of names.*got \[1\]"),
    ],
)
def test_a_fault_names_the_row(read, old, new, says):
    with pytest.raises(SuperbError, match=rf"catalogue\.toml: upstream 'mine\.en': {says}"):
        read(GOOD.replace(old, new))


def test_faults_of_the_file(read, tmp_path):
    with pytest.raises(SuperbError, match=r"cannot read .*mine\.en.* twice"):
        read(GOOD + '[upstreams."mine.en"]\nlayers = 1\n')
    with pytest.raises(SuperbError, match="holds the tables papers, corpora, notes, upstreams"):
        read(GOOD + "[sizes]\n")
    with pytest.raises(SuperbError, match=r"papers\.some must hold text and year"):
        read(GOOD.replace(", year = 2020", ""))
    with pytest.raises(SuperbError, match="cannot read"):
        read_catalogue(tmp_path / "none.toml")
