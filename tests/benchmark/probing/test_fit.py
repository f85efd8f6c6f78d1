"""Many heads in one pass: side by side must be what each would be alone."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark.core import Utterance
from benchmark.encoding.store import FeatureStore
from benchmark.metrics import score
from benchmark.probing import fit as fit_module
from benchmark.probing.batching import training_batches
from benchmark.probing.fit import (
    Look,
    Probe,
    ProbeSpec,
    SplitData,
    build_probe,
    evaluate,
    fit,
    ranked_rates,
    standardisation,
)
from benchmark.probing.layers import Mix
from benchmark.probing.snapshot import Snapshot
from benchmark.progress import Progress
from benchmark.protocol import Halving, Training, load_protocol
from downstreams.load import load_downstream

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


def data(stores, kinds, part=slice(None), **reading) -> SplitData:
    chosen = utterances()[part]
    keys = {u.id: f"key{u.id[1:]}" for u in chosen}
    return SplitData(chosen, keys, {kind: stores[kind] for kind in kinds}, **reading)


def train(
    stores,
    task: str,
    specs,
    training: Training,
    kinds,
    heard=lambda data: None,
    reading=None,
    **options,
) -> list[Probe]:
    downstream = load_downstream(task)
    train_data, valid_data = (
        data(stores, kinds, part, **reading or {}) for part in (slice(0, 16), slice(16, 24))
    )
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
    for part in (train_data, valid_data):
        heard(part)
    quiet = Progress(quiet=True)
    fit(probes, train_data, valid_data, vocabulary, training, quiet, **options)
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


def test_what_is_not_stored_is_encoded_once_for_all_probes_of_a_seed(stores, quick):
    """Each batch of training in one call, and valid at every look: for one probe, or for all."""
    training = load_protocol(str(quick), quick.parent).training("asr")
    training = replace(training, updates=6, evaluate_every=3, halving=())
    rate = training.learning_rates[0]
    calls = []

    def anew(keys):
        calls.append(len(keys))
        return list(map(torch.from_numpy, stores["frames"].read_all(keys)))

    def trained(*specs, **options):
        return train(stores, "asr", specs, training, ("frames",), cores=1, **options)

    own = {"reading": {"anew": anew, "keep_bytes": 0}, "heard": lambda data: calls.clear()}
    mixes = (Mix(2), Mix(None), Mix(None, normalised=True))
    one = trained(ProbeSpec(mixes[1], rate, 0), **own)
    alone = list(calls)
    assert len(alone) == 6 * training.accumulate + 2 * math.ceil(8 / training.batch_utterances)
    several = trained(*(ProbeSpec(mix, rate, 0) for mix in mixes), **own)
    assert calls == alone
    assert_equal(one[0], several[1])
    (stored,) = trained(ProbeSpec(mixes[1], rate, 0))
    assert_equal(one[0], stored)


def test_cores_change_nothing(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("asr")
    specs = [ProbeSpec(mix, 3e-3, 0) for mix in (Mix(1), Mix(None))]
    one, several = (
        train(stores, "asr", specs, training, ("frames",), cores=cores) for cores in (1, 3)
    )
    for probe, other in zip(one, several, strict=True):
        assert_equal(probe, other)


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
    fit(probes, train_data, valid_data, vocabulary, training, Progress(quiet=True))
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
    fit(probes, train_data, valid_data, vocabulary, training, Progress(quiet=True))
    assert [probe.status for probe in probes] == ["finished", "finished", "dropped", "failed"]
    assert ranked_rates(probes, "higher") == [1e-5]


def test_the_best_look_on_valid_is_what_is_kept(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    (probe,) = train(stores, "ks", [ProbeSpec(Mix(None), 1e-2, 0)], training, ("mean",))
    assert probe.best == max(probe.looks, key=lambda look: (look.valid, -look.valid_loss))
    valid = data(stores, ("mean",), slice(16, 24))
    ks = load_downstream("ks")
    records = evaluate(probe, valid, ks, sorted(WORDS), 8)
    assert [record.id for record in records] == [u.id for u in utterances()[16:24]]
    assert score(records, ks.card.metric) == probe.best.valid


def test_rates_are_ranked_over_seeds_and_ties_go_to_the_loss_then_the_smaller():
    def probe(rate: float, seed: int, valid: float, loss: float) -> Probe:
        made = Probe(ProbeSpec(Mix(0), rate, seed), None, None, None, None)  # type: ignore[arg-type]
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


class Diary:
    """What was read of a split, batch by batch; may interrupt."""

    def __init__(self, patience: float = math.inf) -> None:
        self.splits: list[list[list[int]]] = []
        self.patience = patience

    def __call__(self, part: SplitData) -> None:
        read, batches = part.batch, []
        self.splits.append(batches)

        def batch(indices, normalised):
            if len(batches) == self.patience:
                raise KeyboardInterrupt
            batches.append(list(indices))
            return read(indices, normalised)

        part.batch = batch


def test_accumulated_batches_are_one_large_batch(stores, quick):
    """16 utterances, 4 x 4 or at once: an update sees them all, and each counts the same."""
    base = load_protocol(str(quick), quick.parent).training("ks")
    base = replace(base, halving=(), updates=20, evaluate_every=5)
    large = replace(base, batch_utterances=16)
    for size, accumulate in ((4, 4), (6, 3)):  # 6 + 6 + 4 are weighted
        small = replace(base, batch_utterances=size, accumulate=accumulate)
        spec = [ProbeSpec(Mix(None), 1e-2, 0)]
        (one,), diary = train(stores, "ks", spec, large, ("mean",)), Diary()
        (other,) = train(stores, "ks", spec, small, ("mean",), diary)
        assert len(diary.splits[0]) == 20 * accumulate
        assert other.updates == one.updates == 20
        for look, same in zip(one.looks, other.looks, strict=True):
            assert look.valid_loss == pytest.approx(same.valid_loss, rel=1e-4)
            assert look.train_loss == pytest.approx(same.train_loss, rel=1e-4)


def test_takes_of_an_utterance_come_in_turn(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    training = replace(training, halving=(), updates=6, evaluate_every=6)
    takes = [[0, 1, 2], [3], [4, 5], *([index] for index in range(6, 16))]
    diary = Diary()
    specs = [ProbeSpec(Mix(0), 1e-2, 0)]
    train(stores, "ks", specs, training, ("mean",), diary, takes=lambda _: takes)
    epochs = [sorted(chain(*diary.splits[0][i : i + 2])) for i in (0, 2, 4)]
    rest = list(range(6, 16))
    assert epochs == [[0, 3, 4, *rest], [1, 3, 5, *rest], [2, 3, 4, *rest]]


def reads_of(diary: Diary, split: int, seeds: int, each: int = 1) -> list[list[list[int]]]:
    """What each seed read of a split, where they take turns of `each` batches."""
    read = diary.splits[split]
    return [
        [batch for at in range(first * each, len(read), seeds * each) for batch in read[at:][:each]]
        for first in range(seeds)
    ]


def test_probes_of_a_seed_share_its_batches_and_seeds_have_orders_of_their_own(stores, quick):
    """The first seed, whatever its number, has the order that all seeds once had."""
    training = load_protocol(str(quick), quick.parent).training("ks")
    training = replace(training, halving=(), batch_utterances=4, first_seed=1337)
    specs = [
        ProbeSpec(mix, 1e-2, seed) for mix in (Mix(0), Mix(None)) for seed in (1337, 1338, 1339)
    ]
    diary = Diary()
    train(stores, "ks", specs, training, ("mean",), diary)
    assert len(diary.splits[0]) == 3 * training.updates
    first, second, third = reads_of(diary, 0, 3)
    labels = [u.label for u in utterances()[:16]]
    assert first == list(islice(training_batches([1] * 16, labels, 4, "shuffle"), 60))
    for own in (second, third):
        assert sorted(chain(*own[:4])) == list(range(16))
        assert own[:4] != first[:4]
    assert second[:4] != third[:4]
    diary = Diary()
    train(stores, "ks", [ProbeSpec(Mix(0), 1e-2, 1338)], training, ("mean",), diary)
    assert diary.splits[0] == second


def test_seeds_have_masks_and_first_crops_of_their_own(stores, quick, monkeypatch):
    """Of one utterance, whose place in the order is always the same."""
    base = load_protocol(str(quick), quick.parent).training("asr")
    base = replace(base, updates=16, evaluate_every=16, warmup=0, batch_utterances=1)
    masks: dict[int, list[list[bool]]] = {}
    augment = fit_module.spec_augment

    def watched(states, how, generator):
        masked = augment(states, how, generator)
        masks.setdefault(id(generator), []).append((masked.values == 0).flatten().tolist())
        return masked

    monkeypatch.setattr(fit_module, "spec_augment", watched)
    diary = Diary()
    specs = [ProbeSpec(Mix(0), 3e-3, seed) for seed in (0, 2)]
    takes = [list(range(16))]
    train(stores, "asr", specs, base, ("frames",), diary, takes=lambda _: takes)
    first, second = (list(chain(*own)) for own in reads_of(diary, 0, 2))
    assert first == list(range(16))
    assert second == [(second[0] + at) % 16 for at in range(16)]
    assert second[0] != 0
    masks.clear()
    train(stores, "asr", specs, base, ("frames",), takes=lambda _: [[0]])
    one, other = masks.values()
    assert len(one) == len(other) == 16
    assert any(map(any, one))
    assert one != other


def test_a_seed_that_has_failed_is_read_no_more(stores, quick):
    training = replace(load_protocol(str(quick), quick.parent).training("ks"), halving=())
    specs = [ProbeSpec(Mix(0), rate, seed) for rate, seed in ((1e-2, 0), (1e36, 1))]
    diary = Diary()
    good, wild = train(stores, "ks", specs, training, ("mean",), diary)
    assert (good.status, wild.status) == ("finished", "failed")
    assert training.updates < len(diary.splits[0]) < 2 * training.updates
    (alone,) = train(stores, "ks", specs[:1], training, ("mean",))
    assert_equal(alone, good)


def test_valid_is_looked_at_once_for_all_seeds(stores, quick):
    training = replace(load_protocol(str(quick), quick.parent).training("ks"), halving=())
    diary = Diary()
    specs = [ProbeSpec(mix, 1e-2, seed) for mix in (Mix(0), Mix(1)) for seed in (0, 1)]
    train(stores, "ks", specs, training, ("mean",), diary)
    assert len(diary.splits[1]) == 3  # looks, a batch each


def test_balanced_valid_is_drawn_once_a_seed_and_looked_at_again(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    training = replace(training, valid_sampling="balanced", batch_utterances=3, halving=())
    diary = Diary()
    specs = [ProbeSpec(Mix(0), 1e-2, seed) for seed in (0, 1)]
    probes = train(stores, "ks", specs, training, ("mean",), diary)
    drawn = []
    for own in reads_of(diary, 1, seeds=2, each=3):
        looks = list(zip(*[iter(own)] * 3, strict=True))
        assert len(looks) == 3
        assert looks[0] == looks[1] == looks[2]
        drawn.append(list(chain(*looks[0])))
        assert len(drawn[-1]) == 8
        assert drawn[-1] != sorted(set(drawn[-1]))
    assert drawn[0] != drawn[1]
    for spec, beside in zip(specs, probes, strict=True):
        assert {8 * look.valid / 100 % 1 for look in beside.looks} == {0}
        (alone,) = train(stores, "ks", [spec], training, ("mean",))
        assert_equal(alone, beside)


def test_nothing_as_bad_as_can_be_is_kept_where_the_score_alone_selects(stores, quick):
    base = load_protocol(str(quick), quick.parent).training("ks")
    specs = [ProbeSpec(Mix(0), 1e-9, 0)]
    (kept,) = train(stores, "ks", specs, base, ("mean",))
    assert {look.valid for look in kept.looks} == {0.0}
    assert (kept.status, kept.best) == ("finished", min(kept.looks, key=lambda x: x.valid_loss))
    strict = replace(base, select_by="score", halving=())
    (probe,) = train(stores, "ks", specs, strict, ("mean",))
    assert probe.looks == kept.looks
    assert (probe.status, probe.best) == ("failed", None)
    assert probe.reason == "valid accuracy was never better than 0 %"
    assert ranked_rates([probe], "higher") == []


@pytest.mark.parametrize("by", ["score", "loss"])
def test_a_rate_with_nothing_worth_keeping_has_no_score_but_a_loss(by):
    probes = [Probe(ProbeSpec(Mix(0), rate, 0), None, None, None, None) for rate in (0.1, 0.2)]
    for probe, valid in zip(probes, (100.0, 90.0), strict=True):
        probe.looks.append(Look(10, 0.0, valid, valid / 100))
    probes[1].best = probes[1].looks[0]
    assert ranked_rates(probes, "lower", by) == ([0.2] if by == "score" else [0.2, 0.1])


def test_the_score_alone_keeps_the_first_of_equals(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    training = replace(training, select_by="score", halving=(), evaluate_every=5)
    (probe,) = train(stores, "ks", [ProbeSpec(Mix(None), 1e-2, 0)], training, ("mean",))
    top = max(look.valid for look in probe.looks)
    assert probe.best == next(look for look in probe.looks if look.valid == top)
    assert sum(look.valid == top for look in probe.looks) > 1


def test_patience_stops_a_probe_and_not_the_others(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    training = replace(training, select_by="score", halving=(), evaluate_every=5, patience=2)
    specs = [ProbeSpec(Mix(0), rate, 0) for rate in (1e-9, 3e-2)]
    nothing, quickly = train(stores, "ks", specs, training, ("mean",))
    assert (nothing.status, nothing.updates) == ("failed", 10)
    assert (quickly.status, quickly.reason) == ("finished", "no better on valid for 2 looks")
    assert 15 <= quickly.updates < training.updates
    assert quickly.best == quickly.looks[-3]
    (alone,) = train(stores, "ks", specs[1:], training, ("mean",))
    assert_equal(alone, quickly)


def test_half_precision_in_the_head_alone(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("asr")
    half = replace(training, head_precision="bfloat16")
    specs = [ProbeSpec(Mix(None), 3e-3, 0)]
    (full,) = train(stores, "asr", specs, training, ("frames",))
    (probe,) = train(stores, "asr", specs, half, ("frames",))
    assert {value.dtype for value in weights(probe).values()} == {torch.float32}
    part = data(stores, ("frames",), slice(0, 4))
    with torch.inference_mode():
        logits, _ = probe.answer(part.batch(range(4), False))
        exact = replace(probe, half=False).answer(part.batch(range(4), False))[0]
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, exact)
    assert torch.allclose(logits, exact, atol=0.05)
    assert probe.looks[-1].valid_loss == pytest.approx(full.looks[-1].valid_loss, rel=0.05)


def test_a_listener_hears_every_look(stores, quick):
    training = load_protocol(str(quick), quick.parent).training("ks")
    specs = [ProbeSpec(Mix(0), rate, 0) for rate in training.learning_rates]
    heard: dict[int, list[Look]] = {}
    probes = train(
        stores,
        "ks",
        specs,
        training,
        ("mean",),
        listen=lambda probe, look: heard.setdefault(id(probe), []).append(look),
    )
    assert [heard[id(probe)] for probe in probes] == [probe.looks for probe in probes]


@pytest.fixture
def eager(monkeypatch, tmp_path):
    """Makes snapshots that are due whenever they are asked."""
    monkeypatch.setattr("benchmark.probing.snapshot._SHARE", math.inf)

    def make(progress: Progress | None = None) -> Snapshot:
        quiet = progress or Progress(quiet=True)
        return Snapshot(tmp_path / "training", {"test": 1}, quiet, every_s=0)

    return make


RUNS = {
    "ks": (("mean", "mean-normalised"), {}),
    "asr": (("frames",), {"batch_utterances": 4, "accumulate": 2, "patience": 3}),
}


def run_of(quick: Path, task: str) -> tuple[Training, list[ProbeSpec]]:
    """Several mixes, rates and seeds, with halving, dropout and masks where the task has them."""
    training = replace(load_protocol(str(quick), quick.parent).training(task), **RUNS[task][1])
    specs = [
        ProbeSpec(mix, rate, seed)
        for mix in (Mix(1), Mix(None, normalised=True))
        for rate in training.learning_rates
        for seed in (0, 1)
    ]
    return training, specs


def assert_equal_in_all(probes, others) -> None:
    for probe, other in zip(probes, others, strict=True):
        assert_equal(probe, other)
        assert (probe.status, probe.reason) == (other.status, other.reason)
        assert (probe.updates, probe.best) == (other.updates, other.best)


@pytest.mark.parametrize(
    ("task", "stops"), [("ks", (18, 35)), ("asr", (17, 25))], ids=["ks", "asr"]
)
def test_an_interrupted_run_goes_on_to_the_same_weights_bit_for_bit(
    stores, quick, eager, task, stops
):
    """Interrupted between two looks and soon after one, and again on the way; of two seeds."""
    (kinds, _), (training, specs) = RUNS[task], run_of(quick, task)
    reads = 2 * training.accumulate  # for an update of each seed
    whole = train(stores, task, specs, training, kinds)
    done = 0
    for stop in stops:
        diary = Diary((stop - done) * reads)
        with pytest.raises(KeyboardInterrupt):
            train(stores, task, specs, training, kinds, diary, snapshot=eager())
        before, done = done, torch.load(eager().path, weights_only=True)["update"]
        assert before < done < training.updates
    diary = Diary()
    resumed = train(stores, task, specs, training, kinds, diary, snapshot=eager())
    assert len(diary.splits[0]) == (training.updates - done) * reads
    assert_equal_in_all(whole, resumed)


def test_what_is_finished_is_not_trained_again(stores, quick, eager):
    (kinds, _), (training, specs) = RUNS["ks"], run_of(quick, "ks")
    whole = train(stores, "ks", specs, training, kinds, snapshot=eager())
    diary = Diary(0)
    again = train(stores, "ks", specs, training, kinds, diary, snapshot=eager())
    assert_equal_in_all(whole, again)


def test_a_state_that_does_not_fit_is_dropped_with_a_warning(stores, quick, eager, capsys):
    (kinds, _), (training, specs) = RUNS["ks"], run_of(quick, "ks")
    whole = train(stores, "ks", specs, training, kinds, snapshot=eager())
    state = torch.load(eager().path, weights_only=True)
    del state["probes"][-1]["optimizer"]  # found out after others have taken theirs over
    torch.save(state, eager().path)
    snapshot = eager(Progress())
    again = train(stores, "ks", specs, training, kinds, snapshot=snapshot)
    assert "is damaged; training starts from the beginning" in " ".join(
        capsys.readouterr().err.split()
    )
    assert_equal_in_all(whole, again)


KILLED = """
import importlib.util, math, os, signal, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("test_fit", sys.argv[1])
test_fit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test_fit)
from benchmark.probing.snapshot import Snapshot
from benchmark.probing import snapshot as resume

resume._SHARE = math.inf
folder, quick = Path(sys.argv[2]), Path(sys.argv[3])
training, specs = test_fit.run_of(quick, "ks")
stores = {
    kind: test_fit.FeatureStore(folder, {"kind": kind, "storage": "float32"})
    for kind in test_fit.RUNS["ks"][0]
}
snapshot = Snapshot(folder / "training", {"test": 1}, test_fit.Progress(quiet=True), every_s=0)

def kill(probe, look):
    if look.update == 40:
        os.kill(os.getpid(), signal.SIGTERM)

test_fit.train(
    stores, "ks", specs, training, test_fit.RUNS["ks"][0], snapshot=snapshot, listen=kill
)
"""


def test_a_killed_process_is_taken_up_by_another(stores, quick, eager, tmp_path):
    (kinds, _), (training, specs) = RUNS["ks"], run_of(quick, "ks")
    command = [sys.executable, "-c", KILLED, __file__, str(tmp_path), str(quick)]
    killed = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
    assert killed.returncode == -signal.SIGTERM
    diary = Diary()
    resumed = train(stores, "ks", specs, training, kinds, diary, snapshot=eager())
    assert 0 < len(diary.splits[0]) < 2 * training.updates
    assert_equal_in_all(train(stores, "ks", specs, training, kinds), resumed)
