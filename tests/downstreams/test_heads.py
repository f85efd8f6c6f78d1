"""Heads: against torch's own layers and closed forms, and blind to padding."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmark.core import Utterance
from benchmark.protocol import load_protocol
from downstreams import PROTOCOLS
from downstreams.heads import (
    BidirectionalLSTM,
    Dropout,
    PooledClassifier,
    RecurrentTranscriber,
    stack_frames,
    turn_round,
)
from downstreams.load import load_downstream

LENGTHS = [9, 4, 1, 7]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(dim=6, lengths=LENGTHS):
    """Frames past an utterance's length are zero, as hidden states are."""
    frames = random(len(lengths), max(lengths), dim)
    for utterance, length in enumerate(lengths):
        frames[utterance, length:] = 0
    return frames, torch.tensor(lengths)


def transcriber(stack=1, dropout=0.2, dim=6, **sizes):
    torch.manual_seed(0)
    sizes = {"projection": 8, "hidden": 5, "layers": 2, **sizes}
    generator = torch.Generator().manual_seed(0)
    return RecurrentTranscriber(dim, 7, stack=stack, dropout=dropout, generator=generator, **sizes)


def pooled(dim=6):
    torch.manual_seed(0)
    return PooledClassifier(dim, 8, 5)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_pooled_head_by_hand():
    head, (frames, lengths) = pooled(), batch()
    logits, same = head(frames, lengths)
    assert torch.equal(same, lengths)
    for utterance, length in enumerate(LENGTHS):
        mean = frames[utterance, :length].mean(0)
        hidden = head.project.weight @ mean + head.project.bias
        expected = head.classify.weight @ hidden + head.classify.bias
        assert torch.allclose(logits[utterance], expected, atol=1e-6)


def test_pooled_head_gives_the_same_on_time_means():
    head, (frames, lengths) = pooled(), batch()
    means = frames.sum(1, keepdim=True) / lengths[:, None, None]
    on_frames, _ = head(frames, lengths)
    on_means, _ = head(means, torch.ones_like(lengths))
    assert torch.allclose(on_frames, on_means, atol=1e-6)
    target = random(*on_frames.shape, seed=1)
    gradients = [
        torch.autograd.grad((logits * target).sum(), list(head.parameters()))
        for logits in (on_frames, on_means)
    ]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("stack", [None, 1, 2, 3])
def test_padding_does_not_matter(stack):
    head = pooled() if stack is None else transcriber(stack)
    head.eval()
    frames, lengths = batch()
    together, valid = head(frames, lengths)
    for utterance, length in enumerate(LENGTHS):
        alone, own = head(frames[utterance : utterance + 1, :length], lengths[utterance][None])
        assert own[0] == valid[utterance]
        beside = together[utterance] if stack is None else together[utterance, : own[0]]
        assert beside.shape == alone[0].shape
        assert torch.allclose(alone[0], beside, atol=1e-6)


@pytest.mark.parametrize("make", [pooled, transcriber])
def test_what_lies_in_the_padding_does_not_matter(make):
    head = make().eval()
    frames, lengths = batch()
    logits, _ = head(frames, lengths)
    spoilt = frames.clone()
    for utterance, length in enumerate(LENGTHS):
        spoilt[utterance, length:] = 1e3
    other, _ = head(spoilt, lengths)
    for utterance, length in enumerate(LENGTHS):
        valid = slice(None) if logits.dim() == 2 else slice(length)
        assert torch.allclose(logits[utterance][valid], other[utterance][valid], atol=1e-6)


def test_bidirectional_lstm_equals_torchs_on_a_packed_sequence():
    torch.manual_seed(0)
    ours, theirs = BidirectionalLSTM(6, 5), nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            half = ours.backwards if name.endswith("_reverse") else ours.forwards
            weight.copy_(getattr(half, name.removesuffix("_reverse")))
    frames, lengths = batch()
    target = random(len(LENGTHS), max(LENGTHS), 10, seed=1)
    valid = (torch.arange(max(LENGTHS)) < lengths[:, None])[..., None]

    given = [frames.clone().requires_grad_() for _ in range(2)]
    packed = pack_padded_sequence(given[1], lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = ours(given[0], lengths)
    assert torch.allclose(found * valid, expected, atol=1e-6)
    for output in (found, expected):
        (output * valid * target).sum().backward()
    assert torch.allclose(given[0].grad, given[1].grad, atol=1e-5)
    for name, weight in theirs.named_parameters():
        half = ours.backwards if name.endswith("_reverse") else ours.forwards
        gradient = getattr(half, name.removesuffix("_reverse")).grad
        assert weight.grad.abs().max() > 1e-3
        assert torch.allclose(gradient, weight.grad, atol=1e-5)


def test_turn_round_is_its_own_inverse():
    frames, lengths = batch()
    frames += 1  # padding that can be told from zeros
    turned = turn_round(frames, lengths)
    assert torch.equal(turned[1, :4], frames[1, :4].flip(0))
    assert torch.equal(turned[1, 4:], frames[1, 4:])
    assert torch.equal(turn_round(turned, lengths), frames)


@pytest.mark.parametrize("stack", [1, 2, 3, 4, 20])
def test_stack_frames_closed_form(stack):
    frames, lengths = batch()
    stacked, shorter = stack_frames(frames, lengths, stack)
    assert shorter.tolist() == [-(-length // stack) for length in LENGTHS]
    assert stacked.shape == (4, -(-9 // stack), 6 * stack)
    for time in range(stacked.shape[1] * stack):
        place = slice(time % stack * 6, (time % stack + 1) * 6)
        expected = frames[:, time] if time < 9 else torch.zeros(4, 6)
        assert torch.equal(stacked[:, time // stack, place], expected)


def test_dropout_share_and_scale():
    dropout = Dropout(0.2, torch.Generator().manual_seed(0)).train()
    values = dropout(torch.ones(200, 500))
    assert values.unique().tolist() == pytest.approx([0, 1 / 0.8])
    # 1e5 draws: the share has a standard error of 0.0013
    assert float((values == 0).float().mean()) == pytest.approx(0.2, abs=0.006)
    assert float(values.mean()) == pytest.approx(1, abs=0.01)


def test_dropout_is_nothing_in_evaluation():
    values = random(4, 5)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(Dropout(0.5, generator).eval()(values), values)
    assert torch.equal(Dropout(0.0, generator).train()(values), values)
    assert torch.equal(generator.get_state(), before)


def test_dropout_scales_gradients_like_values():
    values = torch.ones(50, 50, requires_grad=True)
    dropped = Dropout(0.5, torch.Generator().manual_seed(0)).train()(values)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_dropout_draws_from_its_own_generator():
    head, (frames, lengths) = transcriber(dropout=0.5).train(), batch()
    before = torch.get_rng_state()
    first, _ = head(frames, lengths)
    second, _ = head(frames, lengths)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    torch.rand(10)
    head.dropout.generator.manual_seed(0)
    again, _ = head(frames, lengths)
    assert torch.equal(first, again)


def test_dropout_follows_every_recurrent_layer():
    """With all but everything dropped, only biases are left, whatever the frames are."""
    head, (frames, lengths) = transcriber(dropout=1 - 1e-7).train(), batch()
    logits, _ = head(frames, lengths)
    assert torch.allclose(logits, head.classify.bias.expand_as(logits), atol=1e-6)


def test_every_frame_sees_the_whole_utterance():
    head, (frames, lengths) = transcriber().eval(), batch()
    frames.requires_grad_()
    logits, _ = head(frames, lengths)
    (gradient,) = torch.autograd.grad(logits[0, 0].sum() + logits[0, 8].sum(), frames)
    assert (gradient[0].abs().sum(-1) > 0).all()
    assert gradient[1:].count_nonzero() == 0


def settings_of(protocol, task):
    own = task.training
    return load_protocol(protocol, PROTOCOLS).training(task.card.name, task.card.features, own).head


def build(protocol, name, dim, hop_s, outputs):
    task = load_downstream(name)
    settings = settings_of(protocol, task)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        return task.head(dim, hop_s, outputs, settings, generator)


def lstm(width, hidden):
    """One direction: four gates, each with input and recurrent weights and torch's two biases."""
    return 4 * hidden * (width + hidden + 2)


@pytest.mark.parametrize("protocol", ["superb", "superb-s3prl"])
@pytest.mark.parametrize(("dim", "millions"), [(768, 42.8), (1024, 43.1), (240, 42.3)])
def test_size_of_superbs_asr_head(protocol, dim, millions):
    outputs = 29  # the blank, space, apostrophe and 26 letters
    head = build(protocol, "asr", dim, 0.02, outputs)
    projection = dim * 1024 + 1024
    first, second = 2 * lstm(1024, 1024), 2 * lstm(2048, 1024)
    assert count(head) == projection + first + second + 2048 * outputs + outputs
    assert round(count(head) / 1e6, 1) == millions
    # the published head has 32 outputs, of which 3 stand for nothing
    assert count(build(protocol, "asr", dim, 0.02, 32)) == count(head) + 3 * 2049


def test_size_of_superbs_keyword_and_speaker_heads():
    assert count(build("superb", "ks", 768, 0.02, 12)) == 768 * 256 + 256 + 256 * 12 + 12
    assert count(build("superb", "sid", 768, 0.02, 1251)) == 768 * 256 + 256 + 256 * 1251 + 1251


def test_size_of_the_small_asr_head():
    """Frames of 20 ms are joined in pairs, those of 40 ms are taken as they are."""
    rest = 2 * lstm(128, 128) + 2 * lstm(256, 128) + 256 * 28 + 28
    assert count(build("mini", "asr", 768, 0.02, 28)) == 2 * 768 * 128 + 128 + rest
    assert count(build("mini", "asr", 768, 0.04, 28)) == 768 * 128 + 128 + rest


def test_superb_does_not_stack():
    """Published heads see the encoder's frames, whatever their hop."""
    task = load_downstream("asr")
    settings = settings_of("superb", task)
    utterance = Utterance("a", b"", "train", text="ABCD")
    for hop_s in (0.01, 0.02):
        assert task.notes([utterance] * 2, [4, 4], hop_s, settings) == []
        assert len(task.notes([utterance] * 2, [3, 4], hop_s, settings)) == 1
