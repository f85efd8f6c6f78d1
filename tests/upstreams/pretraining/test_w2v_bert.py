"""What w2v-BERT adds to wav2vec 2.0; what they share is in ``test_wav2vec2.py``."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from benchmark.errors import SuperbError
from upstreams.models.transformer import HUBERT_BASE
from upstreams.pretraining.objective import Batch, Moment
from upstreams.pretraining.w2v_bert import W2VBERT, W2VBERTSettings

TINY = replace(
    HUBERT_BASE,
    pre_norm=True,
    conv_dims=(8,) * 7,
    dim=16,
    layers=5,
    heads=2,
    feed_forward_dim=32,
    position_kernel=8,
    position_groups=4,
)


class Tiny(W2VBERT):
    sizes = {f"{layers} layers": replace(TINY, layers=layers) for layers in (1, 2, 5)}


def build(size="5 layers", **settings):
    options = {"codes": 4, "final_dim": 8, "distractors": 5, "mask_span": 3, **settings}
    return Tiny(size, W2VBERTSettings(**options), torch.Generator().manual_seed(0))


def run(objective, seed=0):
    waveforms = 0.1 * torch.randn(2, 9600, generator=torch.Generator().manual_seed(1))
    batch = Batch(waveforms, torch.zeros(2))
    return objective(batch, Moment(0.5, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    ("size", "share", "expected"),
    [("2 layers", 0.5, 1), ("5 layers", 0.6, 3), ("5 layers", 0.01, 1), ("5 layers", 0.99, 4)],
)
def test_layers_are_split(size, share, expected):
    assert build(size, lower_share=share).lower_layers == expected


def test_one_layer_cannot_be_split():
    with pytest.raises(SuperbError, match="at least 2 layers"):
        build("1 layers")


def test_contrast_ends_where_prediction_begins():
    """Without prediction, upper layers learn nothing; without contrast, they all do."""
    objective = build(lower_share=0.6, prediction_weight=0.0)
    run(objective).value.backward()
    learns = [any(p.grad.any() for p in layer.parameters()) for layer in objective.encoder.layers]
    assert learns == [True, True, True, False, False]
    objective = build(lower_share=0.6, contrastive_weight=0.0)
    run(objective).value.backward()
    assert all(any(p.grad.any() for p in layer.parameters()) for layer in objective.encoder.layers)
    # The codes are answers here: naming them must not change what they are.
    assert not objective.contrast.quantizer.logits.weight.grad.any()


def test_value_is_the_weighted_sum():
    weights = {"diversity_weight": 0.1, "penalty_weight": 10.0}
    loss = run(build(contrastive_weight=0.3, prediction_weight=0.7, **weights))
    parts = loss.parts
    contrast = parts["contrastive"] + 0.1 * parts["diversity"] + 10 * parts["feature_penalty"]
    torch.testing.assert_close(loss.value.detach(), 0.3 * contrast + 0.7 * parts["prediction"])


def test_answers_are_codes_chosen_without_noise(monkeypatch):
    objective = build()
    quantized, codes = [], []
    objective.contrast.register_forward_pre_hook(lambda _, inputs: quantized.append(inputs[1]))
    prediction_loss = objective.prediction_loss

    def watched(upper_nd, codes_ng):
        codes.append(codes_ng)
        return prediction_loss(upper_nd, codes_ng)

    monkeypatch.setattr(objective, "prediction_loss", watched)
    run(objective)
    assert torch.equal(codes[0], quantized[0].likeliest_ng)
    assert not torch.equal(codes[0], quantized[0].chosen_ng)


def test_prediction_equals_a_written_out_one():
    objective = build()
    generator = torch.Generator().manual_seed(2)
    upper = torch.randn(6, 16, generator=generator)
    codes = torch.randint(4, (6, 2), generator=generator)
    loss, accuracy = objective.prediction_loss(upper, codes)
    weight, bias = objective.prediction.weight, objective.prediction.bias
    losses, right = [], 0
    for frame in range(6):
        for group in range(2):
            rows = slice(4 * group, 4 * group + 4)
            scores = (weight[rows] @ upper[frame] + bias[rows]).tolist()
            answer = int(codes[frame, group])
            losses.append(math.log(sum(map(math.exp, scores))) - scores[answer])
            right += scores.index(max(scores)) == answer
    assert loss.item() == pytest.approx(sum(losses) / 12, rel=1e-5)
    assert accuracy.item() == pytest.approx(right / 12)
