"""Which arithmetic is chosen, by what is measured."""

import pytest
import torch
from torch import nn

from benchmark.encoding import arithmetic
from benchmark.encoding.arithmetic import recur
from benchmark.errors import SuperbError


@pytest.mark.parametrize(
    ("gain", "chosen"), [(0.2, "float32"), (1.2, "float32"), (2.0, "bfloat16")]
)
def test_bfloat16_has_to_be_worth_it(monkeypatch, gain, chosen):
    monkeypatch.setattr(arithmetic, "bfloat16_gain", lambda device: gain)
    precision, why = arithmetic.faster_precision("cpu")
    assert precision == chosen
    assert f"{gain:.1f} x as fast" in why


def test_the_gain_is_measured_in_both(monkeypatch):
    kinds = []

    def taken(work, device):
        kinds.append(work().dtype)
        return 3.0 if kinds[-1] == torch.float32 else 1.5

    monkeypatch.setattr(arithmetic, "seconds_of", taken)
    assert arithmetic.bfloat16_gain("cpu") == 2.0
    assert set(kinds) == {torch.float32, torch.bfloat16}


def test_unknown_names_are_refused():
    for name in ("auto", "float32", "bfloat16"):
        arithmetic.require_precision(name)
    with pytest.raises(SuperbError, match="Known: auto, bfloat16, float32"):
        arithmetic.require_precision("float8")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_runs_in_either_arithmetic_on_any_processor(kind, monkeypatch):
    torch.manual_seed(0)
    layer, x_btd = kind(8, 8, batch_first=True), torch.randn(2, 5, 8)
    plain, _ = layer(x_btd)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(recur(layer, x_btd)[0].float(), plain, atol=2e-2, rtol=0)
        monkeypatch.setattr(arithmetic, "_has_bfloat16_recurrence", lambda: False)
        assert recur(layer, x_btd)[0].equal(plain)
    assert recur(layer, x_btd)[0].equal(plain)
