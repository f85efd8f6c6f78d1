import csv
import io
import re

import pytest

from leaderboard.compare.contamination import RELATIONS, judge, same_name
from leaderboard.read.collect import arrange
from leaderboard.show.render import render


@pytest.mark.parametrize(
    ("trained_on", "corpus", "verdict", "heard"),
    [
        (None, "librispeech", "undisclosed", ()),
        ((), "librispeech", "clean", ()),
        (("librispeech",), "librispeech", "overlap", ("librispeech",)),
        (("librispeech", "mini"), "voxceleb1", "clean", ()),
        (("librispeech", "mini"), "mini", "overlap", ("mini",)),
        (("libri-light",), "librispeech", "overlap", ("libri-light",)),
        (("LL60K",), "librispeech", "overlap", ("LL60K",)),
        (("librispeech",), "libri-light", "clean", ()),
        (("mls", "ls960"), "hf:openslr/librispeech_asr:clean", "overlap", ("ls960", "mls")),
        (("speech-commands-v1",), "speech-commands-v2", "overlap", ("speech-commands-v1",)),
        (("hf:google/speech_commands:v0.01",), "speech-commands-v1", "overlap", None),
        (("voxceleb2",), "voxceleb1", "clean", ()),
        (("librispeech",), "my_manifest", "clean", ()),
        (("librispeech-train-clean-100",), "librispeech", "overlap", None),
        (("LibriSpeech_100h",), "librispeech", "overlap", None),
        (("mini-librispeech",), "mini", "clean", ()),
        (("voxceleb1-dev", "voxceleb2"), "voxceleb1", "overlap", ("voxceleb1-dev",)),
        (("libriheavy",), "librispeech", "overlap", ("libriheavy",)),
        (("hf:s3prl/superb:ks",), "speech-commands-v1", "overlap", None),
        (("hf:s3prl/superb:ks",), "librispeech", "clean", ()),
    ],
)
def test_verdicts(trained_on, corpus, verdict, heard):
    found = judge(trained_on, corpus)
    assert found.verdict == verdict
    assert len(found.reasons) == len(found.heard)
    if heard is not None:
        assert found.heard == heard


@pytest.mark.parametrize(
    ("trained_on", "itself"), [(("ls960", "ll60k"), True), (("ll60k",), False), ((), False)]
)
def test_a_relative_is_not_the_corpus_itself(trained_on, itself):
    assert judge(trained_on, "librispeech").itself is itself


def test_what_shares_with_a_part_of_a_corpus_shares_with_the_corpus():
    assert judge(("librispeech",), "voices").reasons == ("its sentences (asv, sd) are of it",)
    assert judge(("ArabicSpeechCommands",), "voices").reasons == ("its words are of it",)
    (reason,) = judge(("ll60k",), "voices").reasons
    assert reason.startswith("with its sentences (asv, sd), both are cut from LibriVox")
    assert judge(("voxceleb1",), "voices").verdict == "clean"
    assert not judge(("librispeech",), "voices").itself


def test_every_relation_has_a_source_and_a_plain_name():
    for relation in RELATIONS:
        assert relation.source
        assert relation.how
        assert same_name(relation.heard) == relation.heard
        assert same_name(relation.corpus) == relation.corpus


def test_marks_and_footnotes(result):
    runs = [
        result("base", "asr", "last", 10.0, corpus="librispeech", trained_on=("librispeech",)),
        result("large", "asr", "last", 9.0, corpus="librispeech", trained_on=("libri-light",)),
        result("secret", "asr", "last", 8.0, corpus="librispeech", trained_on=None),
        result("signal", "asr", "last", 50.0, corpus="librispeech", trained_on=()),
    ]
    board = arrange(runs)
    text = render(board, "markdown")
    marks = dict(re.findall(r"^\| (\w+) \|.*?\]\**([‡§]?) \|", text, re.MULTILINE))
    assert marks == {"base": "‡", "large": "‡", "secret": "§", "signal": ""}
    assert "in whole or in part: base (card: librispeech; the corpus itself)" in text
    assert re.search(
        r"may share recordings with librispeech: large \(card: libri-light; both .* 1912\.07875\)",
        text,
    )
    assert "neither clean nor not: secret" in text
    rows = {row["upstream"]: row for row in csv.DictReader(io.StringIO(render(board, "csv")))}
    assert {name: row["training_data"] for name, row in rows.items()} == {
        "base": "overlap",
        "large": "overlap",
        "secret": "undisclosed",
        "signal": "clean",
    }
    assert rows["large"]["heard"] == "libri-light"


def test_the_mark_is_per_cell_of_the_summary(result):
    heard = ("librispeech",)
    runs = [
        result("base", "asr", "last", 10.0, corpus="librispeech", trained_on=heard),
        result("base", "sid", "last", 80.0, corpus="voxceleb1", trained_on=heard),
    ]
    line = next(
        line for line in render(arrange(runs), "markdown").splitlines() if line.startswith("| base")
    )
    assert "10.0 [8.0, 12.0]‡ |" in line
    assert "80.0 [78.0, 82.0] |" in line


def test_clean_boards_have_no_footnote(result):
    text = render(arrange([result("a", "ks", "last", 50.0)]), "markdown")
    assert "‡" not in text
    assert "§" not in text


def test_many_upstreams_share_one_footnote(result):
    runs = [
        result(f"e{number}", "asr", "last", 10.0, corpus="librispeech", trained_on=("ls960",))
        for number in range(9)
    ]
    text = render(arrange(runs), "markdown")
    assert text.count("- ‡") == 1
    assert "e0, e1, e2 and 6 more" in text
