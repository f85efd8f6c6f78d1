"""Decoding with a language model: words of the lexicon, weighed by the model."""

import gzip
import importlib.util
import sys

import pytest
import torch

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.protocol import LanguageModel
from downstreams.decode import WordDecoder, read_words
from downstreams.load import load_downstream
from downstreams.text import BLANK

ARPA = """
\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.3
-1.0\t</s>
-0.5\tABBA\t-0.3
-0.5\tCAB\t-0.3
-2.5\tCAC\t-0.3

\\2-grams:
-0.1\t<s> CAB
-0.1\tCAB ABBA
-2.0\tCAB CAB
-0.1\tABBA </s>

\\end\\
"""
VOCABULARY = (BLANK, " ", "A", "B", "C")
SETTINGS = LanguageModel(beam=5, beam_threshold=25.0, lm_weight=2.0, word_score=-1.0)
installed = importlib.util.find_spec("flashlight") is not None
needs_flashlight = pytest.mark.skipif(not installed, reason="superb[lm] is not installed")


@pytest.fixture
def arpa(tmp_path):
    path = tmp_path / "bigram.arpa"
    path.write_text(ARPA)
    return path


def path(text, surety=4.0):
    """Logits whose best path is the text, a blank after each symbol."""
    logits = torch.zeros(2 * len(text), len(VOCABULARY))
    logits[:, 0] = surety
    for place, character in enumerate(text):
        logits[2 * place, VOCABULARY.index(character)] = 2 * surety
    return logits


def test_words_of_an_arpa_model(arpa, tmp_path):
    assert read_words(arpa, None) == ["ABBA", "CAB", "CAC"]
    zipped = tmp_path / "bigram.arpa.gz"
    zipped.write_bytes(gzip.compress(ARPA.encode()))
    assert read_words(zipped, None) == ["ABBA", "CAB", "CAC"]


def test_words_of_a_lexicon(arpa, tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("CAB\tC A B |\nABBA A B B A |\n\nCAB C A B B |\n<unk>\n")
    assert read_words(arpa, lexicon) == ["CAB", "ABBA"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00mmap", "a KenLM binary needs --lexicon FILE"),
        (b"some text\n", "is no ARPA file; give the words with --lexicon FILE"),
        (None, "No such file"),
    ],
)
def test_a_model_without_readable_words(tmp_path, content, message):
    model = tmp_path / "model"
    if content is not None:
        model.write_bytes(content)
    with pytest.raises(SuperbError, match=message):
        read_words(model, None)


def test_without_the_extra_it_is_said_what_to_type(arpa, monkeypatch):
    for name in ("torchaudio.models.decoder", "torchaudio.models.decoder._ctc_decoder"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torchaudio.models.decoder", None)
    with pytest.raises(SuperbError, match=r"pip install 'superb\[lm\]'"):
        WordDecoder(arpa, ["CAB"], VOCABULARY, SETTINGS)


def test_greedy_decoding_alone_has_no_such_metric():
    task = load_downstream("asr")
    utterances = [Utterance("u", b"", "test", text="cab")]
    answers = task.answer(path("CAB")[None], torch.tensor([6]), utterances, VOCABULARY)
    (record,) = task.records(utterances, answers)
    assert list(record.values) == [m.name for m in task.card.metrics] == ["wer", "cer"]


@needs_flashlight
@pytest.mark.parametrize("text", ["CAB ABBA", "ABBA", "CAB ABBA CAB"])
def test_what_is_clear_is_heard_as_it_is(arpa, text):
    decode = WordDecoder(arpa, read_words(arpa, None), VOCABULARY, SETTINGS)
    assert decode(path(text, 20.0)) == text


@needs_flashlight
def test_what_is_no_word_becomes_one_and_the_model_decides(arpa):
    decode = WordDecoder(arpa, read_words(arpa, None), VOCABULARY, SETTINGS)
    assert decode(path("CAB ABBC")) == "CAB ABBA"
    unsure = path("CAC ABBA")
    unsure[4, VOCABULARY.index("B")] = unsure[4, VOCABULARY.index("C")] - 0.5
    assert decode(unsure) == "CAB ABBA"
    weightless = LanguageModel(beam=5, beam_threshold=25.0, lm_weight=0.0, word_score=0.0)
    plain = WordDecoder(arpa, read_words(arpa, None), VOCABULARY, weightless)
    assert plain(unsure) == "CAC ABBA"


@needs_flashlight
def test_a_task_with_a_model_counts_both(arpa):
    task = load_downstream("asr").with_language_model(arpa, None, VOCABULARY, SETTINGS)
    assert [metric.name for metric in task.card.metrics] == ["wer", "cer", "wer_lm"]
    logits = torch.stack([path("CAB ABBC"), path("CAB ABBC")])
    utterances = [Utterance("u", b"", "test", text="cab abba"), Utterance("v", b"", "test")]
    answers = task.answer(logits, torch.tensor([16, 6]), utterances, VOCABULARY)
    first, second = task.records(utterances, answers)
    assert first.hypothesis == "CAB ABBC"
    assert first.values == {"wer": (1, 2), "cer": (1, 8), "wer_lm": (0, 2)}
    assert second.values["wer_lm"] == (1, 0)  # what stands past the length is not read


@needs_flashlight
def test_models_and_lexica_that_do_not_fit(arpa, tmp_path):
    with pytest.raises(SuperbError, match="no word of the lexicon can be spelled"):
        WordDecoder(arpa, ["XYZ"], VOCABULARY, SETTINGS)
    with pytest.raises(SuperbError, match="no space"):
        WordDecoder(arpa, ["CAB"], (BLANK, "A", "B", "C"), SETTINGS)
    damaged = tmp_path / "damaged.arpa"
    damaged.write_text("\\data\\\nnonsense")
    with pytest.raises(SuperbError, match=r"damaged\.arpa cannot be used"):
        WordDecoder(damaged, ["CAB"], VOCABULARY, SETTINGS)
