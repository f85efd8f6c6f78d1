"""Speech recognition: vocabulary, loss, notes, counts, and that it can learn at all."""

import string

import pytest
import torch
from torch import nn

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from downstreams.ctc import BLANK, collapse
from downstreams.load import load_downstream
from downstreams.text import joined, normalise

SETTINGS = {"frame_s": 0.0, "projection": 24, "hidden": 16, "layers": 1, "dropout": 0.0}
VOCABULARY = (BLANK, " ", "A", "B", "C")


@pytest.fixture
def asr():
    return load_downstream("asr")


@pytest.fixture
def one_thread():
    """Work this small is slower on more, above all beside other jobs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def said(*texts, split="train"):
    return [Utterance(f"u{i}", b"", split, f"s{i % 2}", text=t) for i, t in enumerate(texts)]


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def path(text, frames):
    """Logits whose best path is the text, a blank after each symbol."""
    logits = torch.zeros(frames, len(VOCABULARY))
    logits[:, 0] = 1
    for place, character in enumerate(text):
        logits[2 * place, VOCABULARY.index(character)] = 2
    return logits


def test_vocabulary(asr):
    assert asr.vocabulary(said("ba", "c a")) == VOCABULARY
    assert asr.vocabulary(said("c a", "ab")) == VOCABULARY


def test_librispeech_has_28_symbols_and_the_blank(asr):
    """Its transcripts are upper case already, without punctuation but for the apostrophe."""
    texts = [
        "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
        "IT'S NOT",
    ]
    vocabulary = asr.vocabulary(said(*texts))
    assert vocabulary == (BLANK, " ", "'", *string.ascii_uppercase)
    assert len(vocabulary) == 1 + 28
    assert [normalise(text) for text in texts] == texts


def test_loss_of_one_utterance_is_torchs(asr):
    logits = random(1, 12, 5).requires_grad_()
    found = asr.loss(logits, torch.tensor([10]), said("abba c"), VOCABULARY)
    expected = nn.CTCLoss(blank=0, reduction="sum")(
        logits[0, :10].log_softmax(-1),
        torch.tensor([2, 3, 3, 2, 1, 4]),
        torch.tensor(10),
        torch.tensor(6),
    )
    assert found.item() == pytest.approx(expected.item() / 6, rel=1e-6)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found * 6, expected)]
    assert torch.allclose(*gradients, atol=1e-6)
    assert gradients[0][0, 10:].count_nonzero() == 0


def test_loss_by_summing_over_paths(asr):
    """Two frames, one symbol: A-, -A and AA."""
    logits = random(1, 2, 5)
    (one, two) = logits[0].softmax(-1)
    likelihood = one[2] * two[0] + one[0] * two[2] + one[2] * two[2]
    found = asr.loss(logits, torch.tensor([2]), said("a"), VOCABULARY)
    assert float(found) == pytest.approx(float(-likelihood.log()), rel=1e-5)


def test_loss_of_a_batch_is_the_mean_over_utterances(asr):
    logits, lengths = random(3, 12, 5), torch.tensor([12, 8, 5])
    utterances = said("abba c", "c", "a b")
    each = [
        float(asr.loss(logits[i : i + 1], lengths[i : i + 1], [utterances[i]], VOCABULARY))
        for i in range(3)
    ]
    together = float(asr.loss(logits, lengths, utterances, VOCABULARY))
    assert together == pytest.approx(sum(each) / 3, rel=1e-6)


def test_transcript_that_does_not_fit_teaches_nothing(asr):
    logits = random(1, 4, 5).requires_grad_()
    loss = asr.loss(logits, torch.tensor([3]), said("abc a"), VOCABULARY)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.count_nonzero() == 0


@pytest.mark.parametrize("text", ["", "xyz", " "])
def test_valid_transcript_without_a_known_character(asr, text):
    logits = random(1, 6, 5)
    found = asr.loss(logits, torch.tensor([6]), said(text, split="valid"), VOCABULARY)
    assert float(found) == pytest.approx(float(-logits[0].log_softmax(-1)[:, 0].sum()), rel=1e-5)


def test_unknown_characters_are_left_out_of_the_loss(asr):
    logits = random(1, 6, 5)
    lengths = torch.tensor([6])
    assert asr.loss(logits, lengths, said("axb"), VOCABULARY) == asr.loss(
        logits, lengths, said("ab"), VOCABULARY
    )


@pytest.mark.parametrize(
    ("frame_s", "lengths", "unfit"),
    [
        (0.0, [3, 3, 3], 1),  # BOB needs 3, EGG 4 for its repeat
        (0.0, [3, 4, 3], 0),
        (0.0, [2, 3, 3], 2),
        (0.04, [5, 7, 5], 0),  # pairs, the last one alone
        (0.04, [5, 6, 4], 2),
        (0.01, [3, 4, 3], 0),  # never split
    ],
)
def test_notes_count_unfit_transcripts(asr, frame_s, lengths, unfit):
    notes = asr.notes(said("bob", "egg", "a b"), lengths, 0.02, {**SETTINGS, "frame_s": frame_s})
    if not unfit:
        assert notes == []
    else:
        (note,) = notes
        assert note.startswith(f"{unfit} of 3 training transcripts")
        assert ("40 ms" if frame_s == 0.04 else "20 ms") in note
        assert note.endswith(("'EGG'", "'BOB'"))  # one of them, to find it by


def test_nothing_is_learnt_where_no_transcript_fits(asr):
    with pytest.raises(SuperbError, match="every training transcript has more characters than the"):
        asr.notes(said("bob", "egg"), [2, 3], 0.02, SETTINGS)


@pytest.mark.parametrize("text", ["bob", "egg", "aaaa", "a  b"])
def test_notes_agree_with_the_loss(asr, text):
    vocabulary = asr.vocabulary(said(text))
    for frames in range(1, 9):
        loss = asr.loss(
            random(1, frames, len(vocabulary)), torch.tensor([frames]), said(text), vocabulary
        )
        unfit = bool(asr.notes(said(text, "a"), [frames, 9], 0.02, SETTINGS))
        assert unfit == (float(loss) == 0)


def records(asr, logits, lengths, utterances, vocabulary=VOCABULARY):
    answers = asr.answer(logits, lengths, utterances, vocabulary)
    return asr.records(utterances, answers)


def test_records(asr):
    utterances = said("a  cab", "é b", "c", split="test")
    logits = torch.stack([path("A CAB", 12), path("B", 12), path("A B", 12)])
    # what stands past the length is not read
    logits[1, 4:, 2] = 9
    found = records(asr, logits, torch.tensor([12, 4, 12]), utterances)
    assert [(r.id, r.clusters, r.reference, r.hypothesis) for r in found] == [
        ("u0", ("s0",), "A CAB", "A CAB"),
        ("u1", ("s1",), "É B", "B"),
        ("u2", ("s0",), "C", "A B"),
    ]
    assert [r.values for r in found] == [
        {"wer": (0, 2), "cer": (0, 5)},
        {"wer": (1, 2), "cer": (2, 3)},
        {"wer": (2, 1), "cer": (3, 1)},
    ]


def test_records_of_silence(asr):
    (record,) = records(asr, path("", 5)[None], torch.tensor([5]), said("a b"))
    assert (record.hypothesis, record.values) == ("", {"wer": (2, 2), "cer": (3, 3)})


@pytest.mark.parametrize("frame_s", [0.0, 0.04])
def test_learns_three_utterances_by_heart(asr, frame_s, one_thread):
    utterances = said("abba", "cab a", "b c")
    vocabulary = asr.vocabulary(utterances)
    generator = torch.Generator().manual_seed(0)
    sounds = torch.randn(len(vocabulary), 8, generator=generator)
    frames = nn.utils.rnn.pad_sequence(
        [
            torch.stack([sounds[vocabulary.index(c)] for c in u.text.upper() for _ in range(3)])
            for u in utterances
        ],
        batch_first=True,
    )
    frames = frames + 0.1 * torch.randn(frames.shape, generator=generator)
    lengths = torch.tensor([3 * len(utterance.text) for utterance in utterances])
    torch.manual_seed(0)
    settings = {**SETTINGS, "frame_s": frame_s}
    head = asr.head(8, 0.02, len(vocabulary), settings, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        logits, shorter = head(frames, lengths)
        loss = asr.loss(logits, shorter, utterances, vocabulary)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    found = records(asr, *head(frames, lengths), utterances, vocabulary)
    assert losses[-1] < 0.02 * losses[0]
    assert [record.hypothesis for record in found] == ["ABBA", "CAB A", "B C"]
    assert all(r.values["wer"][0] == r.values["cer"][0] == 0 for r in found)


def test_best_path_of_the_helper_is_the_text():
    assert joined(collapse(path("ABBA C", 12).argmax(-1).tolist(), VOCABULARY)) == "ABBA C"
