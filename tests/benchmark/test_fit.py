"""Many heads in one pass: side by side must be what each would be alone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core import Utterance
from benchmark.fit import (
    Look,
    Probe,
    ProbeSpec,
    SplitData,
    build_probe,
    evaluate,
    fit,
    percentage,
    ranked_rates,
    standardisation,
)
from benchmark.layers import Mix
from benchmark.progress import Progress
from benchmark.protocol import Halving, Training, load_protocol
from benchmark.store import FeatureStore
from downstreams import load_downstream

LAYERS, DIM = 3, 6
WORDS = ("aa", "b a", "ab")


@pytest.fixture
def stores(tmp_path: Path):
    """Frames, means and normalised means of 24 made-up utterances, stored exactly."""
    random = np.random.default_rng(0)
    with ExitStack() as stack:
        made = {
            kind: stack.enter_context(FeatureStore(tmp_path, {"kind": kind, "storage": "float32"}))
            for kind in ("frames", "mean", "mean-normalised")
        }
        for index in range(24):
            frames = random.standard_normal((LAYERS, 20 + index, DIM)).astype(np.float32)
            frames[:, :, index % 3] += 2.0  # the label shows
            norms = np.linalg.norm(frames, axis=-1).mean(axis=1)
            tensor = torch.from_numpy(frames)
            normed = torch.nn.functional.layer_norm(tensor, (DIM,)).mean(dim=1).numpy()
            made["frames"].append(f"key{index}", frames, norms)
            made["mean"].append(f"key{index}", frames.mean(axis=1), norms)
            made["mean-normalised"].append(f"key{index}", normed, norms)
        for store in made.values():
            store.commit()
        yield made


def utterances() -> list[Utterance]:
    return [
        Utterance(
            id=f"u{index}",
            audio=b"",
            split="train",
            speaker=f"s{index % 5}",
            text=WORDS[index % 3],
            label=WORDS[index % 3],
        )
        for index in range(24)
    ]


def data(stores, kinds, part=slice(None)) -> SplitData:
    chosen = utterances()[part]
    keys = {u.id: f"key{u.id[1:]}" for u in chosen}
    return SplitData(chosen, keys, {kind: stores[kind] for kind in kinds})


def train(stores, task: str, specs, training: Training, kinds) -> list[Probe]:
    downstream = load_downstream(task)
    train_data, valid_data = data(stores, kinds, slice(0, 16)), data(stores, kinds, slice(16, 24))
    vocabulary = downstream.vocabulary(train_data.utterances)
    probes = [
        build_probe(
            spec,
            downstream,
            training,
            layers=LAYERS,
            dim=DIM,
            hop_s=0.02,
            outputs=len(vocabulary),
            scaling=standardisation(train_data, spec.mix),
        )
        for spec in specs
    ]
    fit(probes, train_data, valid_data, downstream, vocabulary, training, Progress(quiet=True))
    return probes


def weights(probe: Probe) -> dict[str, torch.Tensor]:
    return {
        f"{position}.{name}": value
        for position, module in enumerate(probe.modules)
        for name, value in module.state_dict().items()
    }


def assert_equal(first: Probe, second: Probe) -> None:
    assert first.looks == second.looks
    left, right = weights(first), weights(second)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


@pytest.mark.parametrize(
    ("task", "kinds"), [("ks", ("mean", "mean-normalised")), ("asr", ("frames",))]
)
def test_training_side_by_side_is_training_alone_bit_for_bit(stores, quick, task, kinds):
    training = load_protocol(str(quick), quick.parent).training(task)
    rates = training.learning_rates[:1]  # one rate: nothing to drop, so each runs to the end
    specs = [
        ProbeSpec(mix, rate, seed)
        for mix in (Mix(2), Mix(None), Mix(None, normalised=True))
        for rate in rates
        for seed in (0, 1)
    ]
    together = train(stores, task, specs, training, kinds)
    for spec, beside in zip(specs, together, strict=True):
        (alone,) = train(stores, task, [spec], training, kinds)
        assert_equal(alone, beside)


def test_seeds_differ_and_runs_repeat(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("asr")
    specs = [ProbeSpec(Mix(None), 3e-3, seed) for seed in (0, 1)]
    first = train(stores, "asr", specs, training, ("frames",))
    second = train(stores, "asr", specs, training, ("frames",))
    for one, other in zip(first, second, strict=True):
        assert_equal(one, other)
    assert not torch.equal(first[0].head.classify.weight, first[1].head.classify.weight)


@pytest.mark.parametrize("mix", [Mix(1), Mix(None), Mix(None, normalised=True)])
def test_training_on_time_means_equals_training_on_frames(stores, quick, mix):
    """SUPERB's pooled heads commute with the mean over time, gradients included."""
    training = load_protocol(str(quick), quick.parent).training("ks")
    downstream = load_downstream("ks")
    losses = {}
    for name, kinds in {"means": ("mean", "mean-normalised"), "frames": ("frames",)}.items():
        part = data(stores, kinds)
        vocabulary = downstream.vocabulary(part.utterances)
        probe = build_probe(
            ProbeSpec(mix, 1e-2, 0),
            downstream,
            training,
            layers=LAYERS,
            dim=DIM,
            hop_s=0.02,
            outputs=3,
        )
        losses[name] = []
        for _ in range(20):
            batch = part.batch(range(24), mix.normalised)
            logits, lengths = probe.answer(batch)
            loss = downstream.loss(logits, lengths, batch.utterances, vocabulary)
            probe.optimizer.zero_grad()
            loss.backward()
            probe.optimizer.step()
            losses[name].append(float(loss.detach()))
    assert losses["means"] == pytest.approx(losses["frames"], rel=1e-4)
    assert losses["means"][-1] < 0.9 * losses["means"][0]


def test_a_diverging_head_fails_alone(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    good, bad = ProbeSpec(Mix(2), 1e-2, 0), ProbeSpec(Mix(1), 1e-2, 0)
    downstream = load_downstream("ks")
    train_data, valid_data = data(stores, ("mean",), slice(0, 16)), data(stores, ("mean",))
    vocabulary = downstream.vocabulary(train_data.utterances)
    probes = [
        build_probe(spec, downstream, training, layers=LAYERS, dim=DIM, hop_s=0.02, outputs=3)
        for spec in (good, bad)
    ]
    with torch.no_grad():
        probes[1].head.classify.weight[0, 0] = float("nan")
    fit(probes, train_data, valid_data, downstream, vocabulary, training, Progress(quiet=True))
    assert probes[0].status == "finished"
    assert probes[0].best is not None
    assert probes[1].status == "failed"
    assert "not finite at update 1" in probes[1].reason
    assert ranked_rates(probes[1:], "higher") == []


def test_halving_keeps_the_best_rates_of_each_mix(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    specs = [
        ProbeSpec(mix, rate, seed)
        for mix in (Mix(0), Mix(None))
        for rate in training.learning_rates
        for seed in (0, 1)
    ]
    probes = train(stores, "ks", specs, training, ("mean",))
    for mix in (Mix(0), Mix(None)):
        own = [probe for probe in probes if probe.spec.mix == mix]
        dropped = {probe.spec.learning_rate for probe in own if probe.status == "dropped"}
        assert len(dropped) == 1
        assert all(
            probe.updates == (20 if probe.spec.learning_rate in dropped else 60) for probe in own
        )


def test_a_rate_that_lost_a_seed_keeps_no_place(stores, quick):
    """Else it would crowd out a sound one, and be refused in the end."""
    training = load_protocol(str(quick), quick.parent).training("ks")
    training = replace(training, halving=(Halving(20, 1, "score"),))
    downstream = load_downstream("ks")
    train_data, valid_data = data(stores, ("mean",), slice(0, 16)), data(stores, ("mean",))
    vocabulary = downstream.vocabulary(train_data.utterances)
    probes = [
        build_probe(
            ProbeSpec(Mix(0), rate, seed),
            downstream,
            training,
            layers=LAYERS,
            dim=DIM,
            hop_s=0.02,
            outputs=3,
        )
        for rate in (1e-5, 1e-2)
        for seed in (0, 1)
    ]
    with torch.no_grad():
        probes[3].head.classify.weight[0, 0] = float("nan")  # the better rate loses a seed
    fit(probes, train_data, valid_data, downstream, vocabulary, training, Progress(quiet=True))
    assert [probe.status for probe in probes] == ["finished", "finished", "dropped", "failed"]
    assert ranked_rates(probes, "higher") == [1e-5]


def test_the_best_look_on_valid_is_what_is_kept(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    (probe,) = train(stores, "ks", [ProbeSpec(Mix(None), 1e-2, 0)], training, ("mean",))
    assert probe.best == max(probe.looks, key=lambda look: (look.valid, -look.valid_loss))
    valid = data(stores, ("mean",), slice(16, 24))
    tallies = evaluate(probe, valid, load_downstream("ks"), sorted(WORDS), 8)
    assert [tally.utterance for tally in tallies] == [u.id for u in utterances()[16:24]]
    assert percentage(tallies, "accuracy") == pytest.approx(probe.best.valid)


def test_rates_are_ranked_over_seeds_and_ties_go_to_the_loss_then_the_smaller():
    def probe(rate: float, seed: int, valid: float, loss: float) -> Probe:
        made = Probe(ProbeSpec(Mix(0), rate, seed), None, None, None)  # type: ignore[arg-type]
        made.best = Look(10, 0.0, valid, loss)
        return made

    probes = [
        probe(0.1, 0, 90, 1.0),
        probe(0.1, 1, 50, 1.0),
        probe(0.2, 0, 70, 0.9),
        probe(0.2, 1, 70, 0.9),
        probe(0.3, 0, 60, 0.1),
        probe(0.3, 1, 60, 0.1),
    ]
    assert ranked_rates(probes, "higher") == [0.2, 0.1, 0.3]
    assert ranked_rates(probes, "lower") == [0.3, 0.2, 0.1]
    probes[2].status = "failed"
    assert ranked_rates(probes, "higher") == [0.1, 0.3]


def test_standardisation_gives_zero_means_and_a_mean_variance_of_one(stores):
    part = data(stores, ("frames",))
    shift, scale = standardisation(part, Mix(1))
    frames = torch.cat([part.batch([i], False).plain.values[1, 0] for i in range(24)])
    scaled = (frames - shift) * scale
    assert torch.allclose(scaled.mean(0), torch.zeros(DIM), atol=1e-5)
    assert float(scaled.var(0, correction=0).mean()) == pytest.approx(1, rel=1e-4)


def test_standardisation_does_not_make_signal_of_rounding(stores, tmp_path):
    with FeatureStore(tmp_path / "flat", {"kind": "mean", "storage": "float32"}) as store:
        for index in range(24):
            values = np.full((1, DIM), 1e-6 * index, np.float32)
            store.append(f"key{index}", values, np.array([10.0], np.float32))
        store.commit()
        part = data({"mean": store}, ("mean",))
        shift, scale = standardisation(part, Mix(0))
        states = part.batch(range(24), False).plain.values
        assert float(((states - shift) * scale).abs().max()) < 0.01


def test_fitting_leaves_global_state_alone(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("asr")
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train(stores, "asr", [ProbeSpec(Mix(None), 3e-3, 0)], training, ("frames",))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads
