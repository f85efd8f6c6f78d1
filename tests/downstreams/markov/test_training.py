"""Mixtures, trees and the classical system, on made-up frames whose states are known."""

import numpy as np
import pytest

pytest.importorskip("kaldi_hmm_gmm", reason="needs the extra hmm")

from benchmark.errors import SuperbError
from downstreams.markov.mixtures import Mixtures
from downstreams.markov.training import Recipe, states_of, train
from downstreams.markov.tying import Monophones, Stats, grow
from downstreams.markov.units import EDGE, QUIET, Unit, units

PHONES = ("SIL", "A", "B", "C")
DIM = 4


def test_scores_are_log_likelihoods_of_mixtures():
    random = np.random.default_rng(0)
    frames = [random.normal(size=(400, DIM)).astype(np.float32) * [1, 2, 3, 1]]
    frames[0][200:] += 4
    states = [np.repeat([0, 1], 200)]
    one = Mixtures.single(frames, states, 2)
    own = frames[0][:200].astype(float)
    mean, variance = own.mean(axis=0), own.var(axis=0)
    x = frames[0][:5]
    wanted = -0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance).sum(axis=1)
    assert one.scores(x)[:, 0] == pytest.approx(wanted, rel=1e-3)
    more = one
    for components in (2, 6, 6, 6):
        more = more.improved(frames, states, components)
    weights = [more.model.get_pdf(state).weights for state in range(2)]
    assert sum(map(len, weights)) == 6
    assert [own.sum() for own in weights] == pytest.approx([1, 1], rel=1e-4)
    # more components fit what they learnt from no worse
    labels = states[0]
    fit = [own.scores(frames[0])[range(400), labels].mean() for own in (one, more)]
    assert fit[1] >= fit[0]
    # nothing is drawn by chance, so that a score can be had again
    again = one
    for components in (2, 6, 6, 6):
        again = again.improved(frames, states, components)
    assert np.array_equal(again.scores(frames[0]), more.scores(frames[0]))


def stats(mean, count=500.0):
    mean = np.full(DIM, float(mean))
    return Stats(count, count * mean, count * (mean**2 + 1))


def test_a_tree_splits_where_contexts_differ_and_answers_for_unseen_ones():
    seen = {
        (Unit("B", "A", EDGE), 0): stats(0),
        (Unit("C", "A", EDGE), 0): stats(5),
        (Unit(EDGE, "B", EDGE), 0): stats(9),
        (Unit(EDGE, "B", "A"), 0): stats(9),
        (Unit(EDGE, "C", EDGE), 0): stats(-9),
        (QUIET, 0): stats(2),
    }
    tree = grow(seen, PHONES, 1, leaves=50, gain=100.0, least=10.0)
    assert tree.count == len(PHONES) + 1
    after_b, after_c = (tree.state(Unit(left, "A", EDGE), 0) for left in "BC")
    assert after_b != after_c
    assert tree.state(Unit("A", "A", "C"), 0) in (after_b, after_c)
    assert tree.state(Unit(EDGE, "B", EDGE), 0) == tree.state(Unit(EDGE, "B", "A"), 0)
    assert grow(seen, PHONES, 1, leaves=4, gain=100.0, least=10.0).count == 4
    assert grow(seen, PHONES, 1, leaves=50, gain=100.0, least=600.0).count == 4
    found = {tree.state(Unit(EDGE, phone, EDGE), 0) for phone in PHONES}
    assert found | {after_b, after_c} == set(range(tree.count))


def made_up(count=40, seed=0):
    """Utterances of random words; each phone is a vector, silences between some words."""
    random = np.random.default_rng(seed)
    shapes = {phone: random.normal(size=DIM) * 4 for phone in PHONES}
    frames, spoken, truth = [], [], []
    for _ in range(count):
        words = [
            units([random.choice(["A", "B", "C"]) for _ in range(random.integers(1, 4))])
            for _ in range(3)
        ]
        chain = [QUIET, *words[0], *words[1], QUIET, *words[2], QUIET]
        phones = [unit.phone for unit in chain for _ in range(random.integers(6, 12))]
        noise = random.normal(size=(len(phones), DIM))
        frames.append((np.stack([shapes[phone] for phone in phones]) + noise).astype(np.float32))
        spoken.append(words)
        truth.append(phones)
    return frames, spoken, truth


def test_the_system_finds_where_phones_are():
    frames, spoken, truth = made_up()
    recipe = Recipe(mono_components=24, tri_components=48, leaves=20, gain=50.0)
    system = train(frames, spoken, PHONES, 3, recipe)
    assert system.unfit == ()
    right = total = 0
    for own, words, phones in zip(frames, spoken, truth, strict=True):
        found = system.align(words, own)
        right += sum(unit.phone == phone for (unit, _), phone in zip(found, phones, strict=True))
        total += len(phones)
    assert right / total > 0.95


def test_transcripts_that_do_not_fit_are_left_out_and_named():
    frames, spoken, _ = made_up(6)
    frames[2] = frames[2][:5]
    recipe = Recipe(mono_passes=2, tri_passes=0)
    assert train(frames, spoken, PHONES, 3, recipe).unfit == (2,)
    with pytest.raises(SuperbError, match="none of 1 transcripts fits"):
        train(frames[2:3], spoken[2:3], PHONES, 3, recipe)


def test_phones_have_as_many_states_as_fit():
    assert [states_of(hop) for hop in (0.01, 0.0125, 0.02, 0.04, 0.08)] == [3, 2, 2, 1, 1]


def test_monophones_number_their_states():
    tying = Monophones(PHONES, 2)
    assert [tying.state(Unit("B", p, "C"), place) for p in PHONES for place in (0, 1)] == [
        *range(8)
    ]
