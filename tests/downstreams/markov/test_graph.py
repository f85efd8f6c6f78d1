"""Paths through transducers: each against all paths written out."""

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("kaldi_hmm_gmm", reason="needs the extra hmm")

from downstreams.corpora.pronunciation import Lexicon
from downstreams.markov.graph import Decoding, aligned
from downstreams.markov.ngram import bigrams
from downstreams.markov.tying import Monophones
from downstreams.markov.units import QUIET, pronouncing, units

PHONES = {"AB": "A B", "BA": "B A", "A": "A", "EH": "A"}
TEXTS = ["AB BA", "AB A", "BA EH EH"]


def words():
    return pronouncing(TEXTS, Lexicon("a test", PHONES))


def scores(frames, states, seed):
    return np.random.default_rng(seed).normal(size=(frames, states)).astype(np.float32) * 3


@pytest.mark.parametrize("seed", range(5))
def test_an_alignment_is_the_best_of_all_paths(seed):
    """Against every way to stay in the states of a transcript, silences taken or left out."""
    tying = Monophones(("SIL", "A", "B"), 2)
    spoken = [units(["A", "B"]), units(["B"])]
    own = scores(9, tying.count, seed)
    best = -math.inf
    for quiet in itertools.product((False, True), repeat=3):
        chain = []
        for silent, word in zip(quiet, [*spoken, ()], strict=True):
            chain += [QUIET] * silent + list(word)
        states = [tying.state(unit, place) for unit in chain for place in range(2)]
        for cuts in itertools.combinations(range(1, 9), len(states) - 1):
            ends = [*cuts, 9]
            path = [
                s for s, a, b in zip(states, [0, *cuts], ends, strict=True) for _ in range(b - a)
            ]
            best = max(best, own[range(9), path].sum())
    found = aligned(spoken, tying, own)
    path = [tying.state(unit, place) for unit, place in found]
    assert own[range(9), path].sum() == pytest.approx(best, rel=1e-5)


def test_what_does_not_fit_has_no_alignment():
    tying = Monophones(("SIL", "A", "B"), 3)
    assert aligned([units(["A", "B"])], tying, scores(5, 9, 0)) is None
    assert len(aligned([units(["A", "B"])], tying, scores(6, 9, 0))) == 6


def log_share(sentence):
    """Of the bigrams of `TEXTS`, from the counts."""
    said = [["<s>", *text.split(), "</s>"] for text in TEXTS]
    pairs = [pair for own in said for pair in itertools.pairwise(own)]
    total = 0.0
    for first, second in itertools.pairwise(["<s>", *sentence, "</s>"]):
        after = [b for a, b in pairs if a == first]
        alone = sum(b == second for _, b in pairs) / len(pairs)
        total += math.log(
            (after.count(second) + len(set(after)) * alone) / (len(after) + len(set(after)))
        )
    return total


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_words_found_are_those_of_the_best_path(skips, seed):
    """Against every sentence that fits, every pause and every way to stay."""
    tying = Monophones(("SIL", "A", "B"), 2)
    frames = 3 if skips else 5
    own = scores(frames, tying.count, seed)
    half = math.log(0.5)

    def best_chain(chain):
        """The best way to stay in the states of some units."""
        best = -math.inf
        if len(chain) > frames:
            return best
        choices = [(0,), (1,), (0, 1)] if skips else [(0, 1)]
        for taken in itertools.product(choices, repeat=len(chain)):
            if not chain:
                continue
            states = [tying.state(u, p) for u, own in zip(chain, taken, strict=True) for p in own]
            for cuts in itertools.combinations(range(1, frames), len(states) - 1):
                bounds = list(itertools.pairwise([0, *cuts, frames]))
                path = [s for s, (a, b) in zip(states, bounds, strict=True) for _ in range(b - a)]
                # each frame after a state's last one, and each way out of a unit, has a half
                best = max(best, own[range(frames), path].sum() + half * frames)
        return best

    found = {}
    lexicon = words()
    for count in range(4):
        for sentence in itertools.product(sorted(PHONES), repeat=count):
            for quiet in itertools.product((False, True), repeat=count + 1):
                chain = [QUIET] * quiet[0]
                for word, silent in zip(sentence, quiet[1:], strict=True):
                    chain += [*lexicon.units(word), *[QUIET] * silent]
                total = best_chain(chain) + log_share(sentence) + half * (count + 1)
                found[sentence] = max(total, found.get(sentence, -math.inf))
    decoding = Decoding(lexicon, tying, bigrams(TEXTS), 1.0, skips=skips)
    answer = tuple(decoding.decode(own).split())
    best = max(found.values())
    assert found[answer] == pytest.approx(best, abs=1e-3)


def test_homophones_are_told_apart_by_the_words_before():
    tying = Monophones(("SIL", "A", "B"), 1)
    own = np.full((3, 3), -50.0, np.float32)
    own[[0, 1, 2], [2, 1, 1]] = 0  # B A A
    assert Decoding(words(), tying, bigrams(TEXTS), 1.0).decode(own).split()[0] == "BA"
    texts = ["BA A", "BA A", "AB EH"]
    lexicon = pronouncing(texts, Lexicon("a test", PHONES))
    assert Decoding(lexicon, tying, bigrams(texts), 1.0).decode(own) == "BA A"


def test_words_may_look_like_marks():
    texts = ["#0 <S>", "#BACK-OFF #0"]
    lexicon = pronouncing(texts, None)
    tying = Monophones(lexicon.phones, 1)
    places = [lexicon.phones.index(phone) for phone in "#0"]
    own = np.full((2, tying.count), -50.0, np.float32)
    own[[0, 1], places] = 0
    assert Decoding(lexicon, tying, bigrams(texts), 1.0).decode(own) == "#0"
