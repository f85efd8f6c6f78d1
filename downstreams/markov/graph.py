"""Transducers from the states of HMMs to words, and the best path through them.

Mohri, Pereira and Riley 2002, "Weighted finite-state transducers in speech recognition": the
composition of H (states of a unit), L (units of a word) and G (which word follows which). There is
no C, since units know no neighbours beyond their word. An input label is a state plus one.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from downstreams.markov.kaldi import kaldi, silenced
from downstreams.markov.tying import Tying
from downstreams.markov.units import QUIET, Pronouncing, Unit

# No word is in lower case.
_BACK_OFF: Final = "#back-off"
# A state is stayed in and left with equal probability: what is learnt of it hardly matters.
_HALF: Final = math.log(2)
_BEAM: Final = 15.0
_MOST_ACTIVE: Final = 1000
# Of an alignment, whose scores are not scaled; where it loses the end, all paths are followed.
_ALIGNING_BEAM: Final = 200.0


class Decoding:
    """Finds words in scores of states.

    Args:
        pronouncing: of the words; an n-gram's other words cannot be found.
        tying: the states.
        arpa: the n-gram, as an ARPA file.
        scale: of the scores of states beside those of the n-gram.
        skips: whether a phone may leave out states, where frames are long.
    """

    def __init__(
        self,
        pronouncing: Pronouncing,
        tying: Tying,
        arpa: str,
        scale: float,
        *,
        skips: bool = False,
    ) -> None:
        self.words = sorted(pronouncing.words)
        self._scale = scale
        self._graph = _graph(self.words, pronouncing, tying, arpa, skips)

    def decode(self, scores: NDArray[np.float32]) -> str:
        """The words of the best path that ends a sentence; of any, if the search lost all such.

        Args:
            scores: log likelihoods ``[frame, state]``.
        """
        _, found = search(self._graph, scores * self._scale, _BEAM)
        return " ".join(self.words[word - 1] for word in found)


def aligned(
    spoken: Sequence[Sequence[Unit]], tying: Tying, scores: NDArray[np.float32]
) -> list[tuple[Unit, int]] | None:
    """The unit of each frame, and the place in it; None if the frames are too few.

    Args:
        spoken: units of the words of a transcript, in order; between words may be silence.
        tying: the states.
        scores: log likelihoods ``[frame, state]``.
    """
    fst = kaldi().fst
    graph = fst.StdVectorFst()
    graph.start = graph.add_state()
    path: list[tuple[Unit, int]] = []  # an output label is a place in it plus one

    def chain(begin: int, unit: Unit) -> int:
        """The states of a unit after a node; each arc says where it is."""
        for place in range(tying.places):
            path.append((unit, place))
            label, state = len(path), tying.state(unit, place) + 1
            node = graph.add_state()
            graph.add_arc(begin, fst.StdArc(state, label, 0.0, node))
            graph.add_arc(node, fst.StdArc(state, label, 0.0, node))
            begin = node
        return begin

    begin = graph.start
    for units in [*spoken, ()]:
        quiet = chain(begin, QUIET)
        after = graph.add_state()
        graph.add_arc(begin, fst.StdArc(0, 0, 0.0, after))
        graph.add_arc(quiet, fst.StdArc(0, 0, 0.0, after))
        begin = after
        for unit in units:
            begin = chain(begin, unit)
    graph.set_final(begin, 0.0)
    for beam in (_ALIGNING_BEAM, math.inf):
        _, labels = search(graph, scores, beam, whole=True)
        if len(labels) == len(scores):
            return [path[label - 1] for label in labels]
    return None


def search(
    graph: Any,  # noqa: ANN401 - a transducer of kaldifst
    scores: NDArray[np.float32],
    beam: float,
    *,
    whole: bool = False,
) -> tuple[list[int], list[int]]:
    """Input and output labels of the best path, without epsilons; none if there is no path.

    `whole` paths alone count, which end where the graph does, and no more than the beam narrows
    the search.
    """
    packages = kaldi()
    options = packages.decoder.FasterDecoderOptions()
    options.beam = min(beam, 1e9)
    if not whole:
        options.max_active = _MOST_ACTIVE
    decoder = packages.decoder.FasterDecoder(graph, options)
    decoder.decode(packages.decoder.DecodableCtc(np.ascontiguousarray(scores, np.float32)))
    if whole and not decoder.reached_final():
        return [], []
    found, path = decoder.get_best_path()
    if not found:
        return [], []
    _, inputs, outputs, _ = packages.fst.get_linear_symbol_sequence(path)
    return inputs, outputs


def _graph(
    words: Sequence[str], pronouncing: Pronouncing, tying: Tying, arpa: str, skips: bool
) -> Any:  # noqa: ANN401
    fst = kaldi().fst
    units: dict[Unit, int] = {QUIET: 1}
    for word in words:
        for unit in pronouncing.units(word):
            units.setdefault(unit, len(units) + 1)
    lexicon, first_mark = _lexicon(words, pronouncing, units)
    grammar = _grammar(words, arpa)
    fst.arcsort(lexicon, "olabel")
    both = fst.compose(lexicon, grammar)
    fst.determinize_star(both)
    fst.minimize_encoded(both)
    both = _without_marks(both, first_mark)
    fst.arcsort(both, "ilabel")
    states = _states(units, tying, skips)
    fst.arcsort(states, "olabel")
    return fst.compose(states, both)


def _states(units: Mapping[Unit, int], tying: Tying, skips: bool) -> Any:  # noqa: ANN401
    """H: the states of a unit, to the unit."""
    fst = kaldi().fst
    graph = fst.StdVectorFst()
    hub = graph.add_state()
    graph.start = hub
    graph.set_final(hub, 0.0)
    for unit, label in units.items():
        states = [tying.state(unit, place) + 1 for place in range(tying.places)]
        nodes = [graph.add_state() for _ in states]
        for place, (state, node) in enumerate(zip(states, nodes, strict=True)):
            if skips or place == 0:
                graph.add_arc(hub, fst.StdArc(state, label, 0.0, node))
            graph.add_arc(node, fst.StdArc(state, 0, _HALF, node))
            for after in range(place + 1, tying.places if skips else min(place + 2, tying.places)):
                graph.add_arc(node, fst.StdArc(states[after], 0, _HALF, nodes[after]))
            if skips or place == tying.places - 1:
                graph.add_arc(node, fst.StdArc(0, 0, _HALF, hub))
    return graph


def _lexicon(
    words: Sequence[str], pronouncing: Pronouncing, units: Mapping[Unit, int]
) -> tuple[Any, int]:
    """L: the units of a word, perhaps silence after it, to the word.

    A mark ends each word, another one for each that sounds the same: it can be determinised so.
    """
    fst = kaldi().fst
    graph = fst.StdVectorFst()
    start, hub = graph.add_state(), graph.add_state()
    graph.start = start
    graph.set_final(hub, 0.0)

    def pause(node: int) -> None:
        quiet = graph.add_state()
        graph.add_arc(node, fst.StdArc(0, 0, _HALF, hub))
        graph.add_arc(node, fst.StdArc(units[QUIET], 0, _HALF, quiet))
        graph.add_arc(quiet, fst.StdArc(first_mark, 0, 0.0, hub))

    first_mark = len(units) + 1  # after a pause; then that of backing off; then those of words
    pause(start)
    alike: Counter[tuple[str, ...]] = Counter()
    for label, word in enumerate(words, start=1):
        alike[pronouncing.words[word]] += 1
        node = hub
        for place, unit in enumerate(pronouncing.units(word)):
            after = graph.add_state()
            graph.add_arc(node, fst.StdArc(units[unit], 0 if place else label, 0.0, after))
            node = after
        ended = graph.add_state()
        mark = first_mark + 1 + alike[pronouncing.words[word]]
        graph.add_arc(node, fst.StdArc(mark, 0, 0.0, ended))
        pause(ended)
    graph.add_arc(hub, fst.StdArc(first_mark + 1, len(words) + 1, 0.0, hub))
    return graph, first_mark


def _grammar(words: Sequence[str], arpa: str) -> Any:  # noqa: ANN401
    """G: the n-gram; its words that are not among these are left out."""
    packages = kaldi()
    with tempfile.TemporaryDirectory() as folder:
        model, table = Path(folder, "lm.arpa"), Path(folder, "words.txt")
        model.write_text(arpa, encoding="utf-8")
        names = ["<eps>", *words, _BACK_OFF, "<s>", "</s>"]
        table.write_text("".join(f"{name} {place}\n" for place, name in enumerate(names)), "utf-8")
        with silenced():
            text = packages.lm.arpa2fst(
                str(model),
                disambig_symbol=_BACK_OFF,
                read_symbol_table=str(table),
                max_arpa_warnings=0,
            )
    grammar = packages.fst.compile(text, acceptor=False)
    packages.fst.arcsort(grammar, "ilabel")
    return grammar


def _without_marks(graph: Any, first_mark: int) -> Any:  # noqa: ANN401
    """The same transducer; marks become epsilons."""
    fst = kaldi().fst
    plain = fst.StdVectorFst()
    for _ in range(graph.num_states):
        plain.add_state()
    plain.start = graph.start
    for state in range(graph.num_states):
        plain.set_final(state, graph.final(state))
        for arc in fst.ArcIterator(graph, state):
            label = arc.ilabel if arc.ilabel < first_mark else 0
            plain.add_arc(state, fst.StdArc(label, arc.olabel, arc.weight, arc.nextstate))
    return plain
