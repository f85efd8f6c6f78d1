"""Transcripts: normalisation, greedy decoding and error counts against examples by hand."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from downstreams.ctc import BLANK, collapse
from downstreams.text import (
    character_errors,
    characters,
    joined,
    normalise,
    word_errors,
)

VOCABULARY = (BLANK, " ", "A", "B", "É")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello world", "HELLO WORLD"),
        ("  two\t spaces\n", "TWO SPACES"),
        ("it's", "IT'S"),
        ("non\u00a0breaking", "NON BREAKING"),
        ("e\u0301te\u0301", "\u00c9T\u00c9"),
        ("straße", "STRASSE"),
        ("\u0390", "\u03aa\u0301"),  # upper case takes it apart; this is its shortest form
        ("привет 你好", "ПРИВЕТ 你好"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


@given(st.text())
def test_normalise_once_is_enough(text):
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(unicodedata.normalize("NFD", text)) == once
    assert "  " not in once
    assert once == once.strip()


def test_characters():
    assert characters(["ba", "A c"]) == (BLANK, " ", "A", "B", "C")
    assert characters(["e\u0301", "\u00e9"]) == (BLANK, "\u00c9")
    assert characters([]) == (BLANK,)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([], ""),
        ([0, 0, 0], ""),
        ([2], "A"),
        ([2, 2, 2], "A"),
        ([2, 0, 2], "AA"),
        ([2, 2, 0, 0, 2, 3, 3, 0], "AAB"),
        ([0, 2, 0, 1, 0, 3], "A B"),
        ([2, 1, 0, 1, 3], "A B"),
        ([1, 2, 1, 1], "A"),
        ([1], ""),
        ([4, 0, 4, 1, 2], "ÉÉ A"),
    ],
)
def test_greedy_decoding(path, expected):
    assert joined(collapse(path, VOCABULARY)) == expected


@given(st.lists(st.sampled_from("AB É"), max_size=12).map("".join))
def test_decoding_undoes_encoding(text):
    """A path with a blank between all symbols, each held for some frames, gives the text."""
    path = [0]
    for place, character in enumerate(text):
        path += [VOCABULARY.index(character)] * (1 + place % 3) + [0]
    assert joined(collapse(path, VOCABULARY)) == " ".join(text.split())


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "letters"),
    [
        ("A CAT SAT", "A CAT SAT", (0, 3), (0, 9)),
        ("A CAT SAT", "", (3, 3), (9, 9)),
        ("A CAT SAT", "A CAT", (1, 3), (4, 9)),  # deletion
        ("A CAT SAT", "A BAT SAT", (1, 3), (1, 9)),  # substitution
        ("A CAT SAT", "A CAT SAT UP", (1, 3), (3, 9)),  # insertion
        ("A CAT SAT", "CAT SAT A", (2, 3), (4, 9)),
        ("CAT", "A CAT AND A DOG", (4, 1), (12, 3)),  # 400 %
        ("HI", "BYE ALL", (2, 1), (7, 2)),
        ("ÉTÉ ÇA", "ETE ÇA", (1, 2), (2, 6)),
        ("你好 世界", "你好 世", (1, 2), (1, 5)),
        ("", "A B", (2, 0), (3, 0)),
        ("", "", (0, 0), (0, 0)),
    ],
)
def test_errors_by_hand(reference, hypothesis, words, letters):
    assert word_errors(reference, hypothesis) == words
    assert character_errors(reference, hypothesis) == letters


def distance(one, other):
    """Levenshtein, by the textbook."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (a != b)))
    return row[-1]


WORDS = st.lists(st.sampled_from(["A", "B", "AB", "É", "ß"]), max_size=6).map(" ".join)


@given(WORDS, WORDS)
def test_errors_are_the_edit_distance(reference, hypothesis):
    words = distance(reference.split(), hypothesis.split())
    assert word_errors(reference, hypothesis) == (words, len(reference.split()))
    assert character_errors(reference, hypothesis) == (
        distance(reference, hypothesis),
        len(reference),
    )
