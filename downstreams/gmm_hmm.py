"""The classical pipeline, whole: mixtures of Gaussians on features, triphones, words.

Young, Odell and Woodland 1994: see `downstreams.markov.training`. No gradient, no learning rate and
nothing drawn: what is learnt of one layer of train is one system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from benchmark.core import DownstreamCard, Record, Utterance
from benchmark.protocol import LanguageModel
from downstreams import hmm
from downstreams.corpora.pronunciation import Lexicon
from downstreams.markov.training import Recipe
from downstreams.text import normalise, transcript_records

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Tensor

    from downstreams.markov.graph import Decoding
    from downstreams.markov.mixtures import Frames, Mixtures

_CARD: Final = replace(
    hmm.Hybrid.card,
    name="asr-gmm-hmm",
    head="none: tied-state triphones, Gaussian mixtures; lexicon, bigram, beam search",
    trained=False,
)


@dataclass(frozen=True)
class _Learnt:
    """What train taught.

    Attributes:
        axes: principal ones ``[dim, kept]``, where there are more than mixtures can take.
        mixtures: of the states.
        decoding: finds words.
    """

    axes: Tensor | None
    mixtures: Mixtures
    decoding: Decoding


@dataclass(frozen=True)
class Classical:
    """Speech recognition by hidden Markov models with Gaussian mixtures.

    Attributes:
        lexicon: phones of words; None takes letters for phones.
        model: an n-gram in an ARPA file; one is estimated on train if None.
        hop_s: seconds between frames.
    """

    lexicon: Lexicon | None = None
    model: Path | None = None
    hop_s: float = 0.01
    learnt: _Learnt | None = None

    card: ClassVar[DownstreamCard] = _CARD
    training: ClassVar[Mapping[str, Any]] = {
        "head": {**asdict(Recipe()), "dims": 40, "scale": 0.07}
    }
    """Settings: those of `Recipe`; the dimensions that are left of more; the scale of scores."""

    def with_lexicon(self, lexicon: Lexicon | None) -> Classical:
        """The same with a lexicon, or with letters for phones, as for `downstreams.hmm.Hybrid`."""
        return replace(self, lexicon=hmm.Hybrid().with_lexicon(lexicon).lexicon)

    def with_language_model(
        self,
        model: Path,
        lexicon: Path | None,
        vocabulary: Sequence[str],
        settings: LanguageModel | None,
    ) -> Classical:
        """The same with an n-gram that is given, as for `downstreams.hmm.Hybrid`."""
        from downstreams.markov.units import pronouncing

        hybrid, phones = hmm.Hybrid(self.lexicon), pronouncing(vocabulary, self.lexicon).phones
        checked = hybrid.with_language_model(model, lexicon, phones, settings)
        return replace(self, model=checked.model)

    def at_hop(self, hop_s: float) -> Classical:
        """The same for frames of so many seconds, which says how many states a phone has."""
        return replace(self, hop_s=hop_s)

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The words of train that have phones."""
        from downstreams.markov.units import pronouncing

        known = pronouncing([normalise(u.text) for u in train], self.lexicon)
        return tuple(sorted(known.words))

    def learn(
        self, states: Sequence[Tensor], train: Sequence[Utterance], settings: Mapping[str, Any]
    ) -> Classical:
        """Train a system on the frames of one layer."""
        from downstreams.markov.graph import Decoding
        from downstreams.markov.ngram import bigrams, read_arpa, words_of
        from downstreams.markov.training import states_of
        from downstreams.markov.training import train as train_system
        from downstreams.markov.units import pronouncing, searched, sentences, units

        texts = {utterance.id: normalise(utterance.text) for utterance in train}
        known = pronouncing(texts.values(), self.lexicon)
        said = sentences(texts, self.lexicon, known.phones)
        axes = _axes(states, int(settings["dims"]))
        taught = [place for place, utterance in enumerate(train) if utterance.id in said]
        system = train_system(
            [_reduced(states[place], axes) for place in taught],
            [[units(word.split()) for word in said[train[place].id]] for place in taught],
            known.phones,
            states_of(self.hop_s),
            Recipe.of(settings),
        )
        arpa = bigrams(texts.values()) if self.model is None else read_arpa(self.model)
        words = (
            known if self.model is None else searched(words_of(arpa), self.lexicon, known.phones)
        )
        decoding = Decoding(words, system.tying, arpa, float(settings["scale"]))
        return replace(self, learnt=_Learnt(axes, system.mixtures, decoding))

    def search(self, states: Sequence[Tensor], utterances: Sequence[Utterance]) -> list[str]:
        """The words of the best path of each utterance."""
        assert self.learnt is not None
        mixtures, axes = self.learnt.mixtures, self.learnt.axes
        return [self.learnt.decoding.decode(mixtures.scores(_reduced(own, axes))) for own in states]

    def records(self, utterances: Sequence[Utterance], answers: Sequence[str]) -> list[Record]:
        """Word and character errors of each transcript."""
        return transcript_records(utterances, answers)

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Where phones come from, and the transcripts that teach nothing."""
        from downstreams.markov.training import states_of
        from downstreams.markov.units import training_notes

        texts = [normalise(utterance.text) for utterance in train]
        return training_notes(texts, self.lexicon, lengths, states_of(hop_s))

    def test_notes(self, test: Sequence[Utterance], vocabulary: Sequence[str]) -> list[str]:
        """The words that cannot be found."""
        from downstreams.markov.ngram import read_arpa, words_of
        from downstreams.markov.units import pronouncing, searched, test_notes

        words = vocabulary
        if self.model is not None:
            phones = pronouncing(vocabulary, self.lexicon).phones
            words = list(searched(words_of(read_arpa(self.model)), self.lexicon, phones).words)
        return test_notes([normalise(utterance.text) for utterance in test], words)


def _axes(states: Sequence[Tensor], kept: int) -> Tensor | None:
    """The principal axes ``[dim, kept]`` of frames that have more dimensions than that.

    Gaussians with diagonal covariances want dimensions that are not correlated, as cepstra are.
    """
    import torch

    dim = states[0].shape[1]
    if dim <= kept:
        return None
    total = torch.zeros(dim, dim, dtype=torch.float64)
    for own in states:
        wide = own.double() - own.double().mean(dim=0)
        total += wide.T @ wide
    _, vectors = torch.linalg.eigh(total)
    axes: Tensor = vectors[:, -kept:].float()
    return axes


def _reduced(states: Tensor, axes: Tensor | None) -> Frames:
    """Frames of an utterance along the axes, with mean 0 and variance 1."""
    from downstreams.markov.alignment import normalised

    return normalised((states if axes is None else states @ axes).cpu().numpy())
