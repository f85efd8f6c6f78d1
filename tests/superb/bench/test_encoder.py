"""The comparison of speed: its structure and what it refuses, never how fast anything is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rich.console import Console

from benchmark.encoding import arithmetic
from benchmark.errors import SuperbError
from superb.bench import encoder as bench
from superb.bench.encoder import CONTENDERS, EAGER, OURS, SDPA, TORCHAUDIO, compare
from superb.bench.show import encoder_table
from upstreams.models import transformer

TINY = transformer.EncoderConfig(
    conv_dims=(12,) * 7, dim=32, layers=2, heads=4, feed_forward_dim=48, position_kernel=8,
    position_groups=4,
)  # fmt: skip

LENGTHS = bench.LIBRISPEECH_LIKE  # as it is before the tests make it small


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(arithmetic, "_PEAK_SIZE", {"cpu": 64})
    monkeypatch.setattr(bench, "AT_LEAST_S", 0.1)
    monkeypatch.setattr(bench, "LIBRISPEECH_LIKE", (0.3, 0.2, 0.4))


def use(monkeypatch, name, config):
    """Give a name of the table another architecture."""
    entry = bench.UPSTREAMS[name]
    monkeypatch.setattr(transformer, "TINY_BENCH", config, raising=False)
    changed = replace(entry, architecture="upstreams.models.transformer:TINY_BENCH")
    changed = replace(changed, layers=config.layers + 1, dim=config.dim, parameters=1)
    monkeypatch.setitem(bench.UPSTREAMS, name, changed)


def test_every_workload_and_precision_has_a_row(monkeypatch, rng_untouched):
    use(monkeypatch, "hubert-base", TINY)
    lines = []
    found = compare(
        "hubert-base", True, (0.2, 0.5), ("float32", "bfloat16"), rounds=2, report=lines.append
    )
    audio = ["0.2 s", "0.5 s", "LibriSpeech-like", "LibriSpeech-like, padded"]
    assert [(row.audio, row.precision) for row in found.rows] == [
        (name, precision) for name in audio for precision in ("float32", "bfloat16")
    ]
    assert (found.upstream, found.rounds) == ("untrained:hubert-base", 2)
    assert found.peaks.keys() == {"float32", "bfloat16"}
    for row in found.rows:
        assert tuple(row.rates) == CONTENDERS
        assert all(row.rates[name] > 0 for name in (OURS, EAGER, SDPA))
        assert row.ratio == row.rates[OURS] / row.rates[SDPA]
        expected = row.rates[OURS] * row.gflop_per_s / found.peaks[row.precision]
        assert math.isclose(row.peak_share, expected)
        if row.precision == "float32":
            assert (row.rates[TORCHAUDIO] is None) == row.audio.endswith("padded")
    one_by_one, padded = found.rows[4], found.rows[6]
    assert padded.rates[OURS] == one_by_one.rates[OURS]
    assert padded.rates[SDPA] != one_by_one.rates[SDPA]
    assert lines
    console = Console(width=160)
    with console.capture() as captured:
        console.print(encoder_table(found))
    shown = captured.get().splitlines()
    assert sum("bfloat16" in line and "%" in line for line in shown) == 4
    assert all(name in captured.get() for name in (*CONTENDERS, "ours / sdpa", "of peak"))


VARIANTS = {
    "wav2vec2-large": replace(TINY, conv_norm="layer", pre_norm=True, conv_bias=True),
    "wavlm-base": replace(TINY, relative_buckets=12, relative_distance=20),
    "data2vec-base": replace(
        TINY, conv_norm="layer", position_kernel=5, position_layers=2, position_norm=True
    ),
    "distilhubert": replace(TINY, projection_norm=False),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_family_is_the_same_model_in_all(monkeypatch, variant):
    use(monkeypatch, "hubert-base", VARIANTS[variant])
    found = compare("hubert-base", True, (0.2,), ("float32",), rounds=1)
    row = found.rows[0]
    assert row.ratio == row.rates[OURS] / (row.rates[SDPA] or row.rates[EAGER])
    assert (row.rates[SDPA] is None) == (variant == "wavlm-base")
    assert (row.rates[TORCHAUDIO] is None) == (variant in ("data2vec-base", "distilhubert"))


def test_a_checkpoint_folder_is_compared_itself(make_folder):
    folder, _ = make_folder(normalize=True)
    found = compare(str(folder), seconds=(0.2,), precisions=("float32",), rounds=1)
    assert found.upstream == "model"
    assert found.rows[0].rates[OURS]


def test_different_weights_are_not_timed(monkeypatch, make_folder):
    folder, _ = make_folder()
    load, timed = bench.load_upstream, []

    def changed(name):
        upstream = load(name)
        upstream.encoder.projection.weight.mul_(1.1)
        return upstream

    monkeypatch.setattr(bench, "load_upstream", changed)
    monkeypatch.setattr(bench, "_time", lambda *_: timed.append(1))
    with pytest.raises(SuperbError, match=r"differ by .* are not timed"):
        compare(str(folder), seconds=(0.2,), precisions=("float32",), rounds=1)
    assert not timed


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fbank", {}, "transformers on waveforms only, and fbank .*hubert-base"),
        ("untrained:fbank", {}, "transformers on waveforms only"),
        ("huber-base", {}, "unknown upstream 'huber-base'. Did you mean hubert-base"),
        ("hubert", {"random_weights": False}, "on waveforms only, and hubert is another kind"),
        ("distilhubert", {"precisions": ("float61",)}, "unknown precision"),
        ("distilhubert", {"precisions": ()}, "at least one"),
        ("distilhubert", {"seconds": (0.01,)}, "seconds are at least 0.025"),
        ("distilhubert", {"seconds": (math.nan,)}, "seconds are at least 0.025"),
    ],
)
def test_what_is_refused(name, options, message):
    with pytest.raises(SuperbError, match=message):
        compare(name, **{"random_weights": True, **options})


def test_the_lengths_are_like_librispeech():
    assert len(LENGTHS) == 8
    assert all(2 <= length <= 16 for length in LENGTHS)
    assert sum(LENGTHS) / 8 == pytest.approx(12, abs=0.1)
