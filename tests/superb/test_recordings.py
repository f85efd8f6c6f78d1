from types import SimpleNamespace

import pytest

from downstreams.corpora.mini import load
from superb.recordings import bundled_recordings


def table(**changes):
    return SimpleNamespace(
        **{"downstream": "ks", "corpus": "mini", "corpus_sha256": load("ks").sha256, **changes}
    )


def test_recordings_are_those_of_the_test_split():
    utterances = [u for u in load("ks").utterances if u.split == "test"]
    assert bundled_recordings(table()) == {u.id: u.audio for u in utterances}


@pytest.mark.parametrize(
    "changes",
    [
        {"corpus_sha256": "c0" * 32},  # another corpus of that name
        {"corpus": "librispeech"},
        {"corpus": "my.csv"},
        {"downstream": "a-task-of-mine"},
    ],
)
def test_other_corpora_have_none(changes):
    assert bundled_recordings(table(**changes)) == {}
