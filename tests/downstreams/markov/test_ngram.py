"""Bigrams: shares of one, and those of hand."""

import pytest

from benchmark.errors import SuperbError
from downstreams.markov.ngram import bigrams, read_arpa, words_of

TEXTS = ["the cat sat", "the cat ran", "a cat sat"]


def parsed(arpa):
    alone, backing, pairs = {}, {}, {}
    for line in arpa.splitlines():
        fields = line.split()
        if len(fields) in (2, 3) and fields[0].startswith("-") and "\t" in line:
            if len(line.split("\t")[1].split()) == 2:
                pairs[fields[1], fields[2]] = 10 ** float(fields[0])
            else:
                alone[fields[1]] = 10 ** float(fields[0])
                backing[fields[1]] = 10 ** float(fields[2]) if len(fields) == 3 else 1.0
    return alone, backing, pairs


def test_what_follows_each_word_sums_to_one():
    alone, backing, pairs = parsed(bigrams(TEXTS))
    del alone["<s>"]
    assert sum(alone.values()) == pytest.approx(1, abs=1e-5)
    for first in backing.keys() - {"</s>"}:
        total = sum(pairs.get((first, second), backing[first] * alone[second]) for second in alone)
        assert total == pytest.approx(1, abs=1e-5)


def test_shares_are_those_of_method_c():
    _, backing, pairs = parsed(bigrams(TEXTS))
    # after "cat": sat twice, ran once; two kinds in three; "sat" is 2 of 12 words and ends
    assert backing["cat"] == pytest.approx(2 / 5, abs=1e-5)
    assert pairs["cat", "sat"] == pytest.approx((2 + 2 * 2 / 12) / 5, abs=1e-5)


def test_the_words_of_a_file(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(bigrams(TEXTS))
    assert words_of(read_arpa(path)) == ["a", "cat", "ran", "sat", "the"]
    for text in ("", "no model"):
        path.write_text(text)
        with pytest.raises(SuperbError, match="is no ARPA file"):
            read_arpa(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuperbError, match="cannot be read as an ARPA file"):
        read_arpa(path)
