"""Diarization: segments as text and frames, the loss of the better order, and the error rate."""

import numpy as np
import pytest
import soundfile
import torch
from pyannote.core import Annotation
from pyannote.core import Segment as Span
from pyannote.metrics.diarization import DiarizationErrorRate

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from benchmark.protocol import load_protocol
from downstreams import PROTOCOLS, diarization
from downstreams.diarization import Segment
from downstreams.heads import RecurrentTagger
from downstreams.sd import Sd

TEXT = "ann lee 0.00 1.25; B 0.90 3.00"
HOP = 0.02
SD = Sd().at_hop(HOP)


def mixture(segments=TEXT, name="m0", split="test", **known):
    audio = known.pop("audio", b"")
    return Utterance(name, audio, split, "ann lee+B", columns={"segments": segments}, **known)


def answer(frames):
    """Probabilities that say for sure who speaks in each frame."""
    return np.asarray(frames, np.float32) * 0.9 + 0.05


def test_segments_are_read_and_written():
    found = diarization.read(TEXT)
    assert found == (Segment("ann lee", 0.0, 1.25), Segment("B", 0.9, 3.0))
    assert diarization.read(diarization.written(found)) == found
    assert diarization.shown(found) == "ann lee 0.00-1.25 B 0.90-3.00"
    assert diarization.read(" ; ") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A 0 1; B 2", "'B 2' is not: name, first second, last second"),
        ("A 0 one; B 0 1", "'A 0 one' is not"),
        ("A 1 1; B 0 1", "'A 1 1' does not end after it starts"),
        ("A 2 1; B 0 1", "does not end after it starts"),
        ("A -1 1; B 0 1", "does not end after it starts"),
        ("A 0 inf; B 0 1", "does not end after it starts"),
        ("A nan 1; B 0 1", "does not end after it starts"),
        ("A 0 1; A 2 3", r"1 speaker \(A\), not two"),
        ("A 0 1; B 2 3; C 1 2", r"3 speakers \(A, B, C\), not two"),
        (";", "no speech"),
    ],
)
def test_what_has_no_right_answer_is_refused(text, message):
    with pytest.raises(SuperbError, match=f"m1: .*{message}"):
        SD.check_data([mixture(), mixture(text, "m1")])


def test_segments_beyond_the_recording_are_refused_where_its_length_is_known(tmp_path):
    SD.check_data([mixture(), mixture(span=(5.0, 3.0))])
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(20_000), 10_000)
    for audio in (path, path.read_bytes()):
        with pytest.raises(SuperbError, match=r"B 0.90-3.00 ends beyond the recording.* 2 s"):
            SD.check_data([mixture(), mixture(audio=audio)])
    with pytest.raises(SuperbError, match=r"B 0.90-3.00 ends beyond the recording.* 2.5 s"):
        SD.check_data([mixture(span=(5.0, 2.5))])
    train = [mixture(), mixture(name="m1")]
    assert SD.notes(train, [149, 150], HOP, {}) == []
    (note,) = SD.notes(train, [140, 150], HOP, {})
    assert note == "1 of 2 training recordings end before their last segment does"


def test_a_frame_has_the_label_of_its_centre():
    segments = diarization.read("a 0.00 0.031; b 0.029 0.0499")
    # centres at 10, 30, 50 and 70 ms
    found = diarization.at_centres(segments, 4, HOP)
    assert found.tolist() == [[True, False], [True, True], [False, False], [False, False]]


def test_the_loss_is_that_of_the_better_order():
    labels = torch.tensor(diarization.at_centres(diarization.read(TEXT), 150, HOP)).float()
    logits = torch.randn(1, 150, 2, generator=torch.Generator().manual_seed(0))
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = min(entropy(logits[0], labels), entropy(logits[0], labels.flip(-1)))
    lengths = torch.tensor([150])
    assert SD.loss(logits, lengths, [mixture()], SD.vocabulary([])) == pytest.approx(expected)
    crossed = SD.loss(logits.flip(-1), lengths, [mixture()], ())
    assert crossed == pytest.approx(expected)


def test_every_mixture_counts_the_same_and_padding_nothing():
    utterances = [mixture(), mixture("x 0.1 0.4; y 0.3 0.6")]
    logits = torch.randn(2, 150, 2, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([150, 30])
    each = [
        SD.loss(logits[i : i + 1, :length], torch.tensor([length]), utterances[i : i + 1], ())
        for i, length in enumerate([150, 30])
    ]
    logits[1, 30:] = 1e3
    assert SD.loss(logits, lengths, utterances, ()) == pytest.approx(sum(each) / 2)
    first, second = SD.answer(logits, lengths, utterances, ())
    assert first.shape == (150, 2)
    assert np.allclose(second, logits[1, :30].sigmoid().numpy())


def test_without_a_hop_there_is_an_error():
    with pytest.raises(SuperbError, match="at_hop"):
        Sd().records([mixture()], [answer(np.zeros((150, 2)))])


@pytest.mark.parametrize("crossed", [False, True])
def test_records(crossed):
    frames = diarization.at_centres(diarization.read(TEXT), 150, HOP)
    given = frames[:, ::-1] if crossed else frames
    (record,) = SD.records([mixture()], [answer(given)])
    assert record.clusters == ("B", "ann lee")
    assert record.reference == "ann lee 0.00-1.25 B 0.90-3.00"
    # frames end at 1.24 or 1.26 s
    wrong, speech = record.values["der"]
    assert (wrong, speech) == (10, 3350)
    assert record.hypothesis in (
        "ann lee 0.00-1.24 B 0.90-3.00",
        "ann lee 0.00-1.26 B 0.90-3.00",
    )
    (nothing,) = SD.records([mixture()], [answer(np.zeros((150, 2)))])
    assert nothing.hypothesis == ""
    assert nothing.values["der"] == (3350, 3350)


def random_segments(rng, names, short):
    found = []
    for name in names:
        time = 0.0
        for _ in range(rng.integers(short, 4)):
            start = time + rng.integers(0, 2000) / 1000
            time = start + rng.integers(1, 2000) / 1000
            found.append(Segment(name, start, time))
    return found


def annotated(segments):
    found = Annotation()
    for number, (who, start, end) in enumerate(segments):
        found[Span(start, end), number] = who
    return found


def test_the_error_is_that_of_pyannote():
    """A second opinion on 1,000 random cases, some of them without any answer."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        reference = random_segments(rng, ["a", "b"], 1)
        hypothesis = random_segments(rng, ["x", "y"], 0)
        heard = np.zeros((12_000, 2), np.bool_)
        for who, start, stop in hypothesis:
            heard[round(start * 1000) : round(stop * 1000), "xy".index(who)] = True
        wrong, speech, _ = diarization.errors(diarization.in_milliseconds(reference), heard)
        end = max(s.end_s for s in [*reference, *hypothesis])
        parts = DiarizationErrorRate(collar=0.0, skip_overlap=False)(
            annotated(reference), annotated(hypothesis), uem=Span(0, end), detailed=True
        )
        assert speech / 1000 == pytest.approx(parts["total"], abs=1e-6)
        assert wrong / speech == pytest.approx(parts["diarization error rate"], abs=1e-6)


@pytest.mark.parametrize("median", [1, 3, 11])
def test_the_median_filter(median):
    probabilities = np.random.default_rng(0).uniform(size=(40, 2)).astype(np.float32)
    found = diarization.smoothed(probabilities, 0.4, median)
    half = median // 2
    padded = np.pad(probabilities > 0.4, ((half, half), (0, 0)))
    expected = [np.median(padded[i : i + median], axis=0) > 0.5 for i in range(40)]
    assert np.array_equal(found, expected)
    assert diarization.smoothed(probabilities[:0], 0.4, median).shape == (0, 2)


def test_frames_of_any_length_cover_their_time():
    active = diarization.stretched(np.array([[True, False], [False, True], [True, True]]), 0.0125)
    assert [int(np.flatnonzero(column)[0]) for column in active.T] == [0, 12]
    assert len(active) == 38
    names = ("a", "b")
    assert diarization.segments_of(active, names) == [
        Segment("a", 0.0, 0.012),
        Segment("a", 0.025, 0.038),
        Segment("b", 0.012, 0.038),
    ]


def test_threshold_and_filter_are_chosen_by_the_error():
    assert (Sd().threshold, Sd().median) == (0.5, 11)
    labels = diarization.at_centres(diarization.read(TEXT), 150, HOP)
    quiet = np.where(labels, 0.45, 0.35).astype(np.float32)  # 0.4 alone tells these apart
    tuned = SD.tuned([mixture()], [quiet])
    assert (tuned.threshold, tuned.hop_s) == (0.4, HOP)

    def der(task):
        (record,) = task.records([mixture()], [quiet])
        return record.values["der"][0]

    assert der(tuned) == 10 < der(SD)
    # clicks of two frames, which a filter takes out
    clicks = answer(labels)
    clicks[100::20, 1] = clicks[101::20, 1] = 0.95
    assert SD.tuned([mixture()], [clicks]).median == 11
    # of equals the first
    sure = SD.tuned([mixture()], [answer(labels)])
    assert (sure.threshold, sure.median) == (0.3, 1)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("protocol", "hidden", "updates"),
    [("superb", 512, 30_000), ("superb-s3prl", 512, 30_000), ("mini", 64, 400)],
)
def test_size_of_the_head(protocol, hidden, updates):
    training = load_protocol(protocol, PROTOCOLS).training("sd", "frames", Sd.training)
    assert training.updates == updates
    head = SD.head(768, HOP, 2, training.head, torch.Generator())
    assert count(head) == 4 * hidden * (768 + hidden + 2) + 2 * (hidden + 1)
    assert count(RecurrentTagger(768, 512, 2)) == 2_626_562


def test_the_head_looks_back_only():
    torch.manual_seed(0)
    head = RecurrentTagger(3, 4, 2)
    frames = torch.randn(1, 9, 3, requires_grad=True)
    logits, _ = head(frames, torch.tensor([9]))
    (gradient,) = torch.autograd.grad(logits[0, 4].sum(), frames)
    seen = gradient[0].abs().sum(-1) > 0
    assert seen.tolist() == [True] * 5 + [False] * 4
