"""Layer choices and the mix: every choice against arithmetic done by hand."""

import math

import pytest
import torch

from benchmark.core import HiddenStates
from benchmark.encoding.forward import normalise
from benchmark.errors import SuperbError
from benchmark.probing.layers import LayerMix, Mix, expand


@pytest.fixture
def states():
    """Four layers, two utterances of 6 and 3 frames, five dimensions; padding is zero."""
    values = torch.randn(4, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    values[:, 1, 3:] = 0
    return HiddenStates(values, torch.tensor([6, 3]))


def test_expand_every_choice():
    assert expand(["last"], 13) == {"last": Mix(12)}
    assert expand(["weighted-sum"], 13) == {"weighted-sum": Mix(None)}
    assert expand(["weighted-sum-norm"], 13) == {"weighted-sum-norm": Mix(None, True)}
    assert expand(["3", "-1", "-13"], 13) == {"3": Mix(3), "12": Mix(12), "0": Mix(0)}
    assert expand(["each"], 3) == {"0": Mix(0), "1": Mix(1), "2": Mix(2)}


def test_expand_keeps_order_and_drops_repeats():
    assert list(expand(["weighted-sum", "each", "2", "-3", "last"], 3)) == [
        "weighted-sum",
        "0",
        "1",
        "2",
        "last",
    ]


def test_one_layer_needs_no_weights():
    mixes = expand(["last", "weighted-sum", "0", "-1", "each"], 1)
    assert set(mixes.values()) == {Mix(0)}
    assert list(mixes) == ["last", "weighted-sum", "0"]
    # normalisation still makes another probe of it
    assert expand(["weighted-sum-norm"], 1) == {"weighted-sum-norm": Mix(0, True)}


def test_last_and_its_index_are_the_same_probe():
    mixes = expand(["last", "-1"], 13)
    assert mixes["last"] == mixes["12"]


@pytest.mark.parametrize("choice", ["13", "-14", "99"])
def test_index_out_of_range_names_the_range(choice):
    with pytest.raises(SuperbError) as caught:
        expand([choice], 13)
    message = str(caught.value)
    assert choice in message
    assert "13 hidden layers" in message
    assert "0 to 12" in message
    assert "-13 to -1" in message


@pytest.mark.parametrize(
    ("choice", "near"), [("wieghted-sum", "weighted-sum"), ("lats", "last"), ("eech", "each")]
)
def test_unknown_choice_names_near_matches(choice, near):
    with pytest.raises(SuperbError) as caught:
        expand([choice], 13)
    message = str(caught.value)
    assert repr(choice) in message
    assert "Did you mean" in message
    assert near in message.split("Known:")[0]
    assert "3 or -1" in message


@pytest.mark.parametrize("choice", ["1.5", "", "all"])
def test_unknown_choice_without_near_match_lists_all(choice):
    with pytest.raises(SuperbError, match="last, weighted-sum, weighted-sum-norm") as caught:
        expand([choice], 13)
    assert "Did you mean" not in str(caught.value)


def test_no_choice_is_an_error():
    with pytest.raises(SuperbError, match="no layer choice"):
        expand([], 13)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_single_layer_is_that_layer(states, layer):
    mix = LayerMix(Mix(layer), 4)
    assert torch.equal(mix(states), states.values[layer])
    assert mix.weights is None
    assert list(mix.parameters()) == []


def test_weights_start_equal_and_sum_to_one(states):
    mix = LayerMix(Mix(None), 4)
    assert mix.weights == [0.25] * 4
    assert torch.allclose(mix(states), states.values.mean(0), atol=1e-6)


def test_weighted_sum_by_hand(states):
    mix = LayerMix(Mix(None), 4)
    scores = [0.3, -1.2, 2.0, 0.0]
    with torch.no_grad():
        mix.scores.copy_(torch.tensor(scores))
    exponentials = [math.exp(score) for score in scores]
    weights = [value / sum(exponentials) for value in exponentials]
    assert mix.weights == pytest.approx(weights, abs=1e-7)
    assert sum(mix.weights) == pytest.approx(1, abs=1e-12)
    expected = sum(weight * layer for weight, layer in zip(weights, states.values, strict=True))
    assert torch.allclose(mix(states), expected, atol=1e-6)


def test_weights_learn(states):
    mix = LayerMix(Mix(None), 4)
    target = states.values[2]
    optimizer = torch.optim.Adam(mix.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        (mix(states) - target).square().sum().backward()
        optimizer.step()
    assert mix.weights[2] > 0.95
    assert sum(mix.weights) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("layer", [1, None])
def test_scaling_is_affine_and_padding_stays_zero(states, layer):
    shift, scale = torch.arange(1.0, 6.0), torch.tensor([2.0, 0.5, 1.0, -1.0, 10.0])
    plain = LayerMix(Mix(layer), 4)(states)
    scaled = LayerMix(Mix(layer), 4, (shift, scale))(states)
    assert torch.allclose(scaled[0], (plain[0] - shift) * scale, atol=1e-6)
    assert torch.allclose(scaled[1, :3], (plain[1, :3] - shift) * scale, atol=1e-6)
    assert torch.equal(scaled[1, 3:], torch.zeros(3, 5))


def test_scaling_is_not_learned(states):
    mix = LayerMix(Mix(None), 4, (torch.ones(5), torch.ones(5)))
    assert [parameter.shape for parameter in mix.parameters()] == [(4,)]


def test_normalise_forgets_the_norm_of_a_layer_and_keeps_padding(states):
    gains = torch.tensor([1.0, 10.0, 100.0, 1000.0])[:, None, None, None]
    assert torch.allclose(normalise(states.values * 1000), normalise(states.values), atol=1e-3)
    louder = HiddenStates(normalise(states.values * gains * 1000), states.lengths)
    plain = HiddenStates(normalise(states.values * 1000), states.lengths)
    mix = LayerMix(Mix(None, True), 4)
    assert torch.allclose(mix(louder), mix(plain), atol=1e-3)
    assert torch.equal(mix(plain)[1, 3:], torch.zeros(3, 5))
