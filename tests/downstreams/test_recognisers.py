"""Recognisers: each learns ten utterances by heart, and is what its paper says on small cases."""

import itertools
import math

import pytest
import torch

from benchmark.errors import SuperbError
from benchmark.protocol import load_protocol
from downstreams import PROTOCOLS
from downstreams.attention import END, Attention
from downstreams.load import load_downstream
from downstreams.recogniser import Recogniser, load_head

OUTPUTS = 7
SPELLERS = ("ctc", "attention", "transducer")
DIM = 6


def small(name, **changes):
    head = load_head(name)
    settings = {**head.settings, "projection": 24, "hidden": 24, "dropout": 0.0, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = head.module(DIM, 0.02, OUTPUTS, settings, torch.Generator().manual_seed(0))
    return head, module


def utterances(count=10, seed=0):
    """Frames in which each symbol is a vector of its own, held for four to six frames."""
    draw = torch.Generator().manual_seed(seed)
    shapes = torch.randn(OUTPUTS, DIM, generator=draw)
    targets, frames = [], []
    for place in range(count):
        target = torch.randint(1, OUTPUTS, (3 + place % 4,), generator=draw).tolist()
        held = [
            shapes[own].repeat(int(torch.randint(4, 7, (1,), generator=draw)), 1) for own in target
        ]
        gaps = [0.1 * torch.randn(2, DIM, generator=draw) for _ in target]
        frames.append(torch.cat([part for pair in zip(held, gaps, strict=True) for part in pair]))
        targets.append(target)
    lengths = torch.tensor([len(own) for own in frames])
    return torch.nn.utils.rnn.pad_sequence(frames, batch_first=True), lengths, targets


@pytest.mark.parametrize("name", SPELLERS)
def test_ten_utterances_are_learned_by_heart(name):
    head, module = small(name)
    assert isinstance(head, Recogniser)
    frames, lengths, targets = utterances()
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(150):
        optimiser.zero_grad()
        loss = head.loss(*module(frames, lengths), targets)
        loss.backward()
        optimiser.step()
    module.eval()
    with torch.inference_mode():
        assert head.transcribe(*module(frames, lengths)) == targets


@pytest.mark.parametrize("name", SPELLERS)
def test_padding_changes_nothing(name):
    head, module = small(name)
    module.eval()
    frames, lengths, targets = utterances(4)
    longer = torch.nn.functional.pad(frames, (0, 0, 0, 30))
    with torch.inference_mode():
        plain, padded = module(frames, lengths), module(longer, lengths)
        alone = [
            head.transcribe(*module(own[None, :length], length[None]))[0]
            for own, length in zip(frames, lengths, strict=True)
        ]
        assert head.transcribe(*plain) == head.transcribe(*padded) == alone
        losses = [
            float(head.loss(*module(own[None, :length], length[None]), [target]))
            for own, length, target in zip(frames, lengths, targets, strict=True)
        ]
        assert float(head.loss(*padded, targets)) == pytest.approx(sum(losses) / 4, rel=1e-4)


@pytest.mark.parametrize("name", SPELLERS)
def test_half_precision_is_of_what_is_heard_and_not_of_the_loss(name):
    """As a protocol's head_precision has it."""
    head, module = small(name)
    frames, lengths, targets = utterances(4)
    losses, gradients = {}, {}
    for half in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            heard, count = module(frames, lengths)
        heard = heard.float() if isinstance(heard, torch.Tensor) else heard
        loss = head.loss(heard, count, targets)
        loss.backward()
        assert loss.dtype == torch.float32
        losses[half] = loss.item()
        gradients[half] = torch.cat([own.grad.flatten() for own in module.parameters()])
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert gradients[True].dtype == torch.float32
    off = (gradients[True] - gradients[False]).norm() / gradients[False].norm()
    assert 0 < float(off) < 0.1


@pytest.mark.parametrize("name", SPELLERS)
def test_an_untrained_head_comes_to_an_end(name):
    head, module = small(name)
    module.eval()
    frames, lengths, _ = utterances(3)
    with torch.inference_mode():
        for said in head.transcribe(*module(frames, lengths)):
            assert len(said) <= 2 * frames.shape[1]
            assert 0 not in said


def greedy_attention(module, frames, lengths):
    """The likeliest symbol after the likeliest ones, one utterance at a time."""
    answers = []
    for own, length in zip(frames, lengths, strict=True):
        heard, (count,) = module(own[None, :length], length[None])
        keys, state = module.key(heard.frames), module.begin(heard.frames)
        unheard = torch.zeros(1, int(count))
        said, last = [], END
        while len(said) < 2 * count:
            before = module.embed(torch.tensor([last]))
            state = module.step(state, before, heard.frames, keys, unheard)
            last = int(module.spell(state.hidden, state.context).argmax())
            if last == END:
                break
            said.append(last)
        answers.append(said)
    return answers


def greedy_transducer(module, frames, lengths):
    """At each frame the likeliest symbol until that is the blank, two a frame at most in all."""
    answers = []
    for own, length in zip(frames, lengths, strict=True):
        heard, (count,) = module(own[None, :length], length[None])
        said, state = [], None
        output, state = module.predict(module.embed(torch.tensor([[0]])))
        for frame in heard.frames[0]:
            while True:
                best = int(module.join(frame, module.said(output[0, 0])).argmax())
                if best == 0 or len(said) >= 2 * count:
                    break
                said.append(best)
                output, state = module.predict(module.embed(torch.tensor([[best]])), state)
        answers.append(said)
    return answers


@pytest.mark.parametrize(
    ("name", "greedy"), [("attention", greedy_attention), ("transducer", greedy_transducer)]
)
def test_a_beam_of_one_is_greedy(name, greedy):
    head, module = small(name, beam=1)
    frames, lengths, targets = utterances()
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(40):  # half learned, so that answers differ
        optimiser.zero_grad()
        head.loss(*module(frames, lengths), targets).backward()
        optimiser.step()
    module.eval()
    with torch.inference_mode():
        found = head.transcribe(*module(frames, lengths))
        assert found == greedy(module, frames, lengths)
    assert len(set(map(tuple, found))) > 1


def test_the_loss_of_the_transducer_sums_over_all_paths():
    """Against every order of going on and saying a symbol (Graves 2012, section 2.4)."""
    head, module = small("transducer", frame_s=0.0, reduction=1)
    module.eval()
    frames, target = torch.randn(1, 4, DIM, generator=torch.Generator().manual_seed(1)), [3, 3, 1]
    lengths = torch.tensor([4])
    with torch.inference_mode():
        heard, _ = module(frames, lengths)
        predicted, _ = module.predict(module.embed(torch.tensor([[0, *target]])))
        scores = module.join(heard.frames[0, :, None], module.said(predicted)[0]).log_softmax(-1)
        total = 0.0
        for places in itertools.combinations(range(4 + 3 - 1), 3):  # the last step goes on
            frame = said = 0
            path = 0.0
            for step in range(4 + 3):
                symbol = target[said] if step in places else 0
                path += float(scores[frame, said, symbol])
                said, frame = (said + 1, frame) if step in places else (said, frame + 1)
            total += math.exp(path)
        assert float(head.loss(heard, lengths, [target])) == pytest.approx(
            -math.log(total) / 3, rel=1e-4
        )


def test_the_loss_of_attention_is_that_of_each_symbol_after_the_right_ones():
    head, module = small("attention", ctc_weight=0.0)
    module.eval()
    frames, lengths, targets = utterances(3)
    with torch.inference_mode():
        by_hand = 0.0
        for own, length, target in zip(frames, lengths, targets, strict=True):
            heard, (count,) = module(own[None, :length], length[None])
            keys, state = module.key(heard.frames), module.begin(heard.frames)
            unheard = torch.zeros(1, int(count))
            lost = 0.0
            for last, wanted in zip([END, *target], [*target, END], strict=True):
                before = module.embed(torch.tensor([last]))
                state = module.step(state, before, heard.frames, keys, unheard)
                logits = module.spell(state.hidden, state.context)
                lost -= float(logits.log_softmax(-1)[0, wanted])
            by_hand += lost / (len(target) + 1) / 3
        assert float(head.loss(*module(frames, lengths), targets)) == pytest.approx(
            by_hand, rel=1e-4
        )


@pytest.mark.parametrize("name", SPELLERS)
def test_a_transcript_without_symbols_has_a_loss(name):
    head, module = small(name)
    frames, lengths, targets = utterances(3)
    loss = head.loss(*module(frames, lengths), [[], *targets[1:]])
    assert math.isfinite(loss.item())
    alone = head.loss(*module(frames[:1], lengths[:1]), [[]])
    assert math.isfinite(alone.item())
    assert alone.requires_grad


@pytest.mark.parametrize("name", ["attention", "transducer"])
def test_transcripts_that_are_longer_than_any_answer_are_counted(name):
    head = load_head(name)
    said = [["a"] * 30, ["a"] * 20]
    # 50 frames of 20 ms: 25 of 40 ms, 13 after the reduction, and two characters for each
    assert head.notes(said, [50, 50], 0.02, head.settings)[0].startswith("1 of 2 training")
    with pytest.raises(SuperbError, match="every training transcript has more than 2 characters"):
        head.notes(said[:1], [50], 0.02, head.settings)


def test_a_head_of_ones_own_has_a_name_of_its_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from downstreams.recogniser import Ctc\n\n\nclass Mine(Ctc):\n    pass\n")
    with pytest.raises(SuperbError, match="calls itself 'ctc', which is one of ours"):
        load_head(f"{path}:Mine")


def test_heads_that_are_none_are_named():
    with pytest.raises(SuperbError, match=r"'atention'.*Did you mean attention"):
        load_head("atention")
    with pytest.raises(SuperbError, match="no head: it needs name, title"):
        load_head("downstreams.asr:Asr")
    assert load_head("downstreams.attention:Attention").name == Attention.name


@pytest.mark.parametrize(
    ("protocol", "millions"),
    [("mini", (0.86, 1.42, 1.31, 0.89)), ("superb", (42.8, 78.1, 70.3, 43.0))],
)
def test_heads_have_weights_within_a_factor_of_two(protocol, millions):
    rules, asr, found = load_protocol(protocol, PROTOCOLS), load_downstream("asr"), []
    for name in (*SPELLERS, "hmm"):
        task = asr.with_head(name)
        training = rules.training(task.card.name, "frames", task.training, task.card.base)
        outputs = 120 if name == "hmm" else 29
        with torch.device("meta"):
            head = task.head(768, 0.02, outputs, training.head, torch.Generator())
        found.append(sum(weights.numel() for weights in head.parameters()) / 1e6)
    assert found == pytest.approx(millions, abs=0.06 if protocol == "superb" else 0.006)
    assert max(found) < 2 * min(found)
