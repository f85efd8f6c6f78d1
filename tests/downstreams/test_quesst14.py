"""QUESST 2014: documents in both splits, dev queries to choose on, eval queries to test."""

from pathlib import Path

import pytest

from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions, quesst14
from downstreams.corpora.check import audit
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.corpora.quesst14 import FOLDER, LAYOUT
from downstreams.load import load_downstream
from tests.downstreams.test_iemocap import wav

QBE = load_downstream("qbe")
DEV = "scoring/groundtruth_quesst14_dev/quesst14_dev.rttm"
LISTS = {
    "utterances": [("Audio", f"quesst14_{number:05d}", number != 3) for number in range(1, 6)],
    "dev": [("dev_queries", f"quesst14_dev_{number:04d}", number != 2) for number in (1, 2, 3)],
    "eval": [("eval_queries", f"quesst14_eval_{number:04d}", True) for number in (1, 2)],
}
HELD = {"dev": [(1, 1), (1, 3), (2, 3), (3, 2)], "eval": [(2, 1), (5, 1)]}


def make(root):
    """Five documents and five queries, one of either in another language."""
    (root / "scoring").mkdir(parents=True)
    for name, rows in LISTS.items():
        lines = []
        for place, (folder, stem, english) in enumerate(rows):
            path = root / folder / f"{stem}.wav"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(wav(10 * len(rows) + place))
            language = "nnenglish" if english else "czech"
            lines.append(f"{FOLDER}/{folder}/{stem}.wav\t{language}\n")
        (root / f"scoring/language_key_{name}.lst").write_text("".join(lines))
    for part, pairs in HELD.items():
        path = root / f"scoring/groundtruth_quesst14_{part}/quesst14_{part}.rttm"
        path.parent.mkdir()
        lines = [
            f"LEXEME quesst14_{document:05d} 1 0.00 5.30 {query} lex <NA> <NA>\n"
            for document, query in ((one, f"quesst14_{part}_{other:04d}") for one, other in pairs)
        ]
        lines.insert(0, "SPKR-INFO quesst14_00001 1 <NA> <NA> <NA> unknown x <NA>\n")
        lines.append("LEXEME quesst14_00004 1 0.00 5.30 NO_KEYWORD lex x <NA>\n")
        path.write_text("".join(lines))
    return root


def load(root, **splits):
    corpus = load_corpus("quesst14", QBE.card, CorpusOptions(root, splits))
    check_fits(QBE, corpus)
    return corpus


def test_documents_are_in_both_splits_with_the_queries_that_they_hold(tmp_path):
    corpus = load(make(tmp_path))
    found = {u.id: (u.split, u.value("role"), u.value("term")) for u in corpus.utterances}
    one, three = "quesst14_dev_0001", "quesst14_dev_0003"
    assert found == {
        "dev/quesst14_00001": ("valid", "document", f"{one};{three}"),
        "dev/quesst14_00002": ("valid", "document", three),
        "dev/quesst14_00004": ("valid", "document", "-"),
        "dev/quesst14_00005": ("valid", "document", "-"),
        f"dev/{one}": ("valid", "query", one),
        f"dev/{three}": ("valid", "query", three),
        "eval/quesst14_00001": ("test", "document", "-"),
        "eval/quesst14_00002": ("test", "document", "quesst14_eval_0001"),
        "eval/quesst14_00004": ("test", "document", "-"),
        "eval/quesst14_00005": ("test", "document", "quesst14_eval_0001"),
        "eval/quesst14_eval_0001": ("test", "query", "quesst14_eval_0001"),
        "eval/quesst14_eval_0002": ("test", "query", "quesst14_eval_0002"),
    }
    assert corpus.note == (
        "partial copy: documents 4 of 2438 utterances, dev 2 of 138 utterances, "
        "eval 2 of 138 utterances"
    )
    (note, _) = QBE.test_notes(corpus.split("test"), ())
    assert note == "terms that no test document holds, left out: 'quesst14_eval_0002'"


def test_the_folder_above_gives_the_same_corpus(tmp_path):
    inside = load(make(tmp_path / FOLDER))
    assert load(tmp_path) == inside


def test_a_check_finds_what_is_missing_or_not_listed(tmp_path):
    make(tmp_path)
    (tmp_path / "Audio/quesst14_00002.wav").unlink()
    (tmp_path / "Audio/quesst14_00003.wav").unlink()  # of another language
    (tmp_path / "dev_queries/quesst14_dev_0009.wav").touch()
    found = LAYOUT.survey(tmp_path)
    assert found.missing == {Path("Audio/quesst14_00002.wav"): "documents"}
    assert found.extra == {Path("dev_queries/quesst14_dev_0009.wav"): "dev"}
    outcome = audit(found, LAYOUT.official, tmp_path)
    assert {split: own.utterances for split, own in outcome.splits.items()} == {
        "documents": 3,
        "dev": 2,
        "eval": 2,
    }


@pytest.mark.parametrize(
    ("path", "old", "new", "says"),
    [
        ("scoring/language_key_dev.lst", "\tnnenglish", "", r"dev\.lst, line 1: .* is not '.*LANG"),
        ("scoring/language_key_dev.lst", "dev_queries", "..", r"dev\.lst, line 1: .* is not"),
        ("scoring/language_key_dev.lst", "0003", "0001", "line 3: quesst14_dev_0001 is listed tw"),
        ("scoring/language_key_eval.lst", "nnenglish", "czech", "no recordings of split eval of"),
        (DEV, " 5.30 quesst14_dev_0001 lex <NA> <NA>", "", r"dev\.rttm, line 2: .* is not 'LEXEME"),
        (DEV, "LEXEME quesst14_00001", "LEXEME other", r"dev\.rttm, line 2: .* is not 'LEXEME"),
    ],
)
def test_lists_that_cannot_be_understood(tmp_path, path, old, new, says):
    text = (make(tmp_path) / path).read_text()
    assert old in text
    (tmp_path / path).write_text(text.replace(old, new))
    with pytest.raises(SuperbError, match=f"{says}.*quesst14Database.tgz"):
        load(tmp_path)


@pytest.mark.parametrize("gone", [DEV, "scoring/language_key_eval.lst"])
def test_lists_that_are_not_there(tmp_path, gone):
    (make(tmp_path) / gone).unlink()
    with pytest.raises(SuperbError, match=r"no list of QUESST 2014 .*: wanted"):
        load(tmp_path)


def test_no_corpus_options_and_no_other_task(tmp_path):
    with pytest.raises(SuperbError, match=r"no QUESST 2014 in .*: wanted scoring/language_key_utt"):
        load(tmp_path)
    with pytest.raises(SuperbError, match="takes no --valid-split: dev queries are valid"):
        load(tmp_path, valid="dev")
    with pytest.raises(SuperbError, match="unknown task of corpus 'quesst14'"):
        quesst14.load("ks", CorpusOptions(tmp_path))
