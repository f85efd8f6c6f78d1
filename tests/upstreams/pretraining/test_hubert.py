"""HuBERT: the codes of masked frames, and nothing else, are what is learned."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from benchmark.errors import SuperbError
from upstreams.models.generative import RECURRENT_MINI
from upstreams.pretraining.hubert import HuBERT
from upstreams.pretraining.masking import span_mask
from upstreams.pretraining.objective import Batch, Moment

pytestmark = pytest.mark.usefixtures("tiny_hubert")


@pytest.fixture
def heard(babble):
    waveforms = torch.stack([torch.from_numpy(babble(seed, 1.5)) for seed in range(6)])
    return Batch(waveforms, torch.arange(6))


@pytest.fixture
def objective(heard):
    def make(**settings: object) -> HuBERT:
        # As in the paper: of the frames that are heard, nothing is asked.
        chosen = HuBERT.Settings(**{"clusters": 8, "masked_weight": 1.0, **settings})
        made = HuBERT("mini", chosen, torch.Generator().manual_seed(0))
        made.prepare([heard], moment())
        return made

    return make


def moment(seed: int = 0) -> Moment:
    return Moment(0.0, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "books", [{}, {"teacher": "mfcc,fbank,hubert", "layer": "0,0,3", "parts": "3,1,1"}]
)
def test_the_loss_is_the_papers_over_masked_frames_written_out(objective, heard, books):
    made = objective(**books)
    loss = made(heard, moment(5))
    frames, lengths = made.encoder.front_end(heard.waveforms, [24_000] * 6)
    mask = span_mask(6, frames.shape[1], 0.08, 10, moment(5).generator)
    codes = made.right_codes(heard.waveforms, frames.shape[1])
    assert codes.shape[2] == len(made.codes) == (5 if books else 1)
    masked = frames.clone()
    masked[mask] = made.mask_embedding
    *_, last = made.encoder.states(masked, lengths)
    terms = []
    for utterance, frame in mask.nonzero().tolist():
        for book, embeddings in enumerate(made.codes):
            state = made.projection[book] @ last[utterance, frame]
            cosines = torch.stack([F.cosine_similarity(state, code, dim=0) for code in embeddings])
            terms.append(-F.log_softmax(cosines / 0.1, dim=0)[codes[utterance, frame, book]])
    torch.testing.assert_close(loss.value, torch.stack(terms).mean())
    assert float(loss.parts["masked"]) == pytest.approx(float(mask.float().mean()))


def test_a_weight_below_one_puts_the_rest_on_the_frames_that_are_heard(objective, heard):
    made = objective(masked_weight=0.25)
    mask = span_mask(6, made.architecture.frames(24_000), 0.08, 10, moment(5).generator)
    codes = made.right_codes(heard.waveforms, mask.shape[1])[:, :, 0]
    frames, lengths = made.encoder.front_end(heard.waveforms, [24_000] * 6)
    seen = torch.where(mask.unsqueeze(2), made.mask_embedding, frames)
    *_, last = made.encoder.states(seen, lengths)
    masked, other = (F.cross_entropy(made.logits(last[m])[:, 0], codes[m]) for m in (mask, ~mask))
    torch.testing.assert_close(made(heard, moment(5)).value, 0.25 * masked + 0.75 * other)


def test_targets_of_frames_that_are_heard_do_not_matter(objective, heard, monkeypatch):
    made = objective()
    before = made(heard, moment(5)).value
    frames = made.architecture.frames(24_000)
    mask = span_mask(6, frames, 0.08, 10, moment(5).generator)
    codes = made.right_codes(heard.waveforms, frames)
    changed = torch.where(mask.unsqueeze(2), codes, (codes + 1) % 8)
    monkeypatch.setattr(made, "right_codes", lambda waveforms, frames: changed)
    assert torch.equal(made(heard, moment(5)).value, before)
    changed[mask] = (changed[mask] + 1) % 8
    assert not torch.equal(made(heard, moment(5)).value, before)


def test_all_weights_learn_and_a_small_set_is_learned_by_heart(objective, heard):
    torch.set_num_threads(1)
    made = objective(mask_share=0.03)
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = made(heard, moment(1))
        optimizer.zero_grad()
        loss.value.backward()
        assert all(weight.grad is not None for weight in made.parameters())
        optimizer.step()
        losses.append(float(loss.value.detach()))
    assert losses[-1] < 0.15 * losses[0]
    assert float(loss.parts["accuracy"]) > 0.95


def test_a_second_iteration_learns_from_a_layer_of_any_encoder(objective, heard):
    made = objective(teacher="hubert", layer="3")
    assert made(heard, moment()).value.item() > 0
    assert made.targets[0].coders[0].centroids.shape == (8, 192)
    assert [card.name for card in made.teachers] == ["hubert"]


def test_several_codebooks_are_measured_one_by_one(heard):
    made = HuBERT(
        "mini",
        HuBERT.Settings(clusters=8, teacher="mfcc,fbank", parts="3,1"),
        torch.Generator().manual_seed(0),
    )
    found = made.prepare(iter([heard]), moment())
    assert {f"code_perplexity_{number}" for number in (1, 2, 3, 4)} <= set(found)
    assert len(set(found)) == 16
    assert [card.name for card in made.teachers] == ["mfcc", "fbank"]


@pytest.mark.parametrize("targets", ["gmm", "random-projection"])
def test_other_kinds_of_targets(objective, heard, targets):
    assert objective(targets=targets)(heard, moment()).value.item() > 0


def test_disturbed_inputs_keep_the_targets_of_the_clean_ones(objective, heard, monkeypatch):
    made = objective(disturbed=1.0)
    seen = []
    forward = made.right_codes
    monkeypatch.setattr(
        made,
        "right_codes",
        lambda waves, frames: (seen.append(waves), forward(waves, frames))[1],
    )
    disturbed = made(heard, moment(5)).value
    assert torch.equal(seen[0], heard.waveforms)
    clean = objective()(heard, moment(5)).value
    assert not torch.equal(disturbed, clean)


@pytest.mark.parametrize(
    ("recurrent", "layer", "taken"), [(False, 0, 1), (False, 2, 2), (True, 0, 2), (True, 3, 3)]
)
def test_telling_utterances_apart_is_a_loss_of_its_own_on_a_layer(
    heard, monkeypatch, recurrent, layer, taken
):
    if recurrent:
        monkeypatch.setattr(HuBERT, "sizes", {"mini": RECURRENT_MINI})
    settings = HuBERT.Settings(clusters=8, utterance_weight=0.5, utterance_layer=layer)
    made = HuBERT("mini", settings, torch.Generator().manual_seed(0))
    assert made.utterance_layer == taken
    made.prepare([heard], moment())
    with_it = made(heard, moment(5))
    without = HuBERT("mini", HuBERT.Settings(clusters=8), torch.Generator().manual_seed(0))
    without.load_state_dict(made.state_dict(), strict=False)
    alone = without(heard, moment(5))
    torch.testing.assert_close(with_it.value, alone.value + 0.5 * with_it.parts["utterance_loss"])
    assert not any(name.startswith("utterance") for name in alone.parts)
    with_it.value.backward()
    assert made.utterance_projection.grad.abs().sum() > 0


def test_a_layer_that_the_body_lacks_is_refused():
    with pytest.raises(SuperbError, match="utterance_layer must be at most 2; got 7"):
        HuBERT("mini", HuBERT.Settings(utterance_weight=1, utterance_layer=7), torch.Generator())


def test_a_step_depends_on_its_generator_alone(objective, heard):
    state = torch.get_rng_state()
    made = objective()
    assert torch.equal(made(heard, moment(3)).value, made(heard, moment(3)).value)
    assert not torch.equal(made(heard, moment(3)).value, made(heard, moment(4)).value)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_the_bits_give_nearly_the_same_loss(objective, heard):
    made = objective()
    with torch.autocast("cpu", torch.bfloat16):
        loss = made(heard, moment())
    torch.testing.assert_close(loss.value, made(heard, moment()).value, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("targets", "phones"),
        ("clusters", 1),
        ("layer", "-1"),
        ("layer", "1,2"),
        ("layer", "x"),
        ("parts", "0"),
        ("teacher", "mfcc,"),
        ("mask_share", 0.0),
        ("mask_span", 0),
        ("temperature", 0.0),
        ("temperature", float("inf")),
        ("disturbed", 1.5),
        ("utterance_weight", -1.0),
        ("utterance_weight", float("nan")),
        ("utterance_layer", -1),
        ("utterance_layer", 2),  # of no use without a weight
    ],
)
def test_nonsense_is_refused(setting, value):
    with pytest.raises(SuperbError, match=setting):
        HuBERT.Settings(**{setting: value})
