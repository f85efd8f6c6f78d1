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


def test_the_words_of_a_file_are_those_in_upper_case(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(bigrams([text.upper() for text in TEXTS]))
    assert words_of(read_arpa(path)) == ["A", "CAT", "RAN", "SAT", "THE"]
    path.write_text(bigrams(TEXTS))
    assert words_of(read_arpa(path)) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda text: "", "no .data. or no"),
        (lambda text: "no model", "no .data. or no"),
        (lambda text: text[: len(text) // 2].rpartition("\n")[0], "where its head says"),
        (lambda text: text.replace("\\end\\", ""), "no .end. at its end"),
        (lambda text: text.replace("</s>", "stop"), "no </s>"),
        (lambda text: text.replace("\tcat", "\tcat x y z", 1), "is no line of 1-grams"),
        (lambda text: text.replace("ngram 2=", "ngram 2=1"), "where its head says"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_before_kaldi_reads_it(tmp_path, broken, said):
    path = tmp_path / "lm.arpa"
    path.write_text(broken(bigrams(TEXTS)))
    with pytest.raises(SuperbError, match=said):
        read_arpa(path)


def test_bytes_are_no_file_of_words(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuperbError, match="cannot be read as an ARPA file"):
        read_arpa(path)
