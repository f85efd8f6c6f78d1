"""The hybrid: a network says how likely states are, hidden Markov models make words of them.

Bourlard and Morgan 1993, "Continuous speech recognition by multilayer perceptron and hidden Markov
models"; the network is recurrent (Graves, Jaitly and Mohamed 2013). It learns which state of which
phone the classical system hears (`downstreams.markov.alignment`); its posteriors divided by priors
go as likelihoods into the search for words, by a lexicon and an n-gram.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from benchmark.core import DownstreamCard, Material, Record, Utterance
from benchmark.errors import SuperbError
from benchmark.protocol import LanguageModel
from downstreams import ctc
from downstreams.asr import CARD
from downstreams.corpora.pronunciation import Lexicon
from downstreams.text import normalise, transcript_records

if TYPE_CHECKING:  # listing tasks is to stay instant
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor, nn

    from downstreams.markov.graph import Decoding

_CARD: Final = replace(
    CARD,
    name="asr-hmm",
    head="linear, 2-layer BLSTM, linear; states of phones, lexicon, bigram, beam search",
    base=CARD.name,
)
_IGNORED: Final = -100


@dataclass(frozen=True)
class _Search:
    """What finds words, as plain values.

    Attributes:
        words: word → its phones, between spaces.
        phones: all of them, silence first.
        arpa: the n-gram, as an ARPA file.
        scale: of the scores of states beside those of the n-gram.
    """

    words: Mapping[str, str]
    phones: tuple[str, ...]
    arpa: str
    scale: float

    def decoding(self) -> Decoding:
        """The same, ready to search."""
        from downstreams.markov.alignment import PLACES
        from downstreams.markov.graph import Decoding
        from downstreams.markov.tying import Monophones
        from downstreams.markov.units import Pronouncing

        words = Pronouncing({word: tuple(own.split()) for word, own in self.words.items()}, {}, "")
        return Decoding(words, Monophones(self.phones, PLACES), self.arpa, self.scale, skips=True)


@dataclass(frozen=True)
class _Learnt:
    """What train teaches before the network learns.

    Attributes:
        states: utterance id → its state at each 10 ms.
        priors: log share of each state ``[state]``.
        search: finds words, as values.
        decoding: the same, ready.
        frame_s: seconds of a frame of the head.
    """

    states: Mapping[str, NDArray[np.int16]]
    priors: Tensor
    search: _Search
    decoding: Decoding
    frame_s: float


@dataclass(frozen=True)
class Hybrid:
    """Speech recognition by a network and hidden Markov models.

    Attributes:
        lexicon: phones of words; None takes letters for phones.
        model: an n-gram in an ARPA file; one is estimated on train if None.
    """

    lexicon: Lexicon | None = None
    model: Path | None = None
    learnt: _Learnt | None = None

    card: ClassVar[DownstreamCard] = _CARD
    training: ClassVar[Mapping[str, Any]] = {"head": {**ctc.RECURRENT_HEAD, "scale": 0.5}}

    def with_lexicon(self, lexicon: Lexicon | None) -> Hybrid:
        """The same with a lexicon, or with letters for phones.

        Raises:
            SuperbError: the packages of Kaldi are not installed.
        """
        from downstreams.markov.kaldi import kaldi

        kaldi()
        return replace(self, lexicon=lexicon)

    def with_language_model(
        self,
        model: Path,
        lexicon: Path | None,
        vocabulary: Sequence[str],
        settings: LanguageModel | None,
    ) -> Hybrid:
        """The same with an n-gram that is given.

        Raises:
            SuperbError: it is no ARPA file, comes with a lexicon of spellings, or has no word that
                phones of train are enough for.
        """
        from downstreams.markov.ngram import read_arpa, words_of
        from downstreams.markov.units import searched

        if lexicon is not None:
            raise SuperbError(
                "--lexicon is of spellings; the heads hmm and gmm-hmm take --pronunciations FILE"
            )
        phones = {name.rpartition(".")[0] or name for name in vocabulary}
        if not searched(words_of(read_arpa(model)), self.lexicon, phones).words:
            raise SuperbError(
                f"no word of --lm {model} is in upper case, as transcripts are, and has phones in "
                "the lexicon that train has too. Write its words in upper case"
            )
        return replace(self, model=model)

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The states of all phones of train, silence first."""
        from downstreams.markov.alignment import PLACES
        from downstreams.markov.units import pronouncing

        known = pronouncing([normalise(u.text) for u in train], self.lexicon)
        return tuple(f"{phone}.{place}" for phone in known.phones for place in range(PLACES))

    def prepared(self, material: Material) -> Hybrid:
        """Align train, count states, and build what finds words."""
        import numpy as np
        import torch

        from downstreams.markov.alignment import HOP_S, PLACES, alignments, at_frames
        from downstreams.markov.ngram import bigrams, read_arpa, words_of
        from downstreams.markov.training import Recipe
        from downstreams.markov.units import pronouncing, searched, sentences

        phones = tuple(name.rpartition(".")[0] for name in material.vocabulary[::PLACES])
        texts = {u.id: normalise(u.text) for u in (*material.train, *material.valid)}
        taught = [texts[utterance.id] for utterance in material.train]
        said = sentences(texts, self.lexicon, phones)
        states = alignments(material, said, phones, Recipe())
        frame_s = ctc.stacked(material.hop_s, material.settings) * material.hop_s
        counts = np.ones(len(material.vocabulary))
        for utterance in material.train:
            if utterance.id in states:
                own = states[utterance.id]
                frames = max(1, round(len(own) * HOP_S / frame_s))
                np.add.at(counts, at_frames(own, frames, frame_s), 1)
        arpa = bigrams(taught) if self.model is None else read_arpa(self.model)
        words = (
            pronouncing(taught, self.lexicon).within(phones)
            if self.model is None
            else searched(words_of(arpa), self.lexicon, phones)
        )
        search = _Search(
            {word: " ".join(own) for word, own in words.words.items()},
            phones,
            arpa,
            float(material.settings["scale"]),
        )
        priors = torch.tensor(np.log(counts / counts.sum()), dtype=torch.float32)
        return replace(self, learnt=_Learnt(states, priors, search, search.decoding(), frame_s))

    def kept(self) -> Mapping[str, Any]:
        """Priors, and what finds words; not the alignment of train, which answers do not need."""
        assert self.learnt is not None
        return {
            "priors": self.learnt.priors.tolist(),
            "search": asdict(self.learnt.search),
            "frame_s": self.learnt.frame_s,
        }

    def with_kept(self, kept: Mapping[str, Any]) -> Hybrid:
        """The same with what another had learnt, ready to answer."""
        import torch

        own = kept["search"]
        search = _Search(dict(own["words"]), tuple(own["phones"]), own["arpa"], float(own["scale"]))
        priors = torch.tensor(kept["priors"], dtype=torch.float32)
        learnt = _Learnt({}, priors, search, search.decoding(), float(kept["frame_s"]))
        return replace(self, learnt=learnt)

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """That of CTC, with states for characters."""
        from downstreams.heads import RecurrentTranscriber

        return RecurrentTranscriber.of(dim, hop_s, outputs, settings, generator)

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """Cross-entropy per frame, averaged over the utterances that are aligned."""
        import torch

        from downstreams.markov.alignment import at_frames

        # before it is prepared, nothing is aligned
        states = {} if self.learnt is None else self.learnt.states
        wanted = torch.full(logits.shape[:2], _IGNORED)
        for row, (utterance, length) in enumerate(zip(utterances, lengths.tolist(), strict=True)):
            own = states.get(utterance.id)
            if own is not None:
                assert self.learnt is not None
                wanted[row, :length] = torch.from_numpy(at_frames(own, length, self.learnt.frame_s))
        each = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2),
            wanted.to(logits.device),
            ignore_index=_IGNORED,
            reduction="none",
        )
        aligned = (wanted != _IGNORED).sum(dim=1).to(logits.device)
        mean: Tensor = (each.sum(dim=1) / aligned.clamp(min=1)).sum() / (aligned > 0).sum().clamp(
            min=1
        )
        return mean

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[str]:
        """The words of the best path."""
        assert self.learnt is not None
        likely = (logits.log_softmax(dim=-1).cpu() - self.learnt.priors).numpy()
        return [
            self.learnt.decoding.decode(own[:length])
            for own, length in zip(likely, lengths.tolist(), strict=True)
        ]

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
        from downstreams.markov.units import training_notes

        texts, stack = [normalise(u.text) for u in train], ctc.stacked(hop_s, settings)
        return training_notes(texts, self.lexicon, [-(-length // stack) for length in lengths], 1)

    def test_notes(self, test: Sequence[Utterance], vocabulary: Sequence[str]) -> list[str]:
        """The words that cannot be found."""
        from downstreams.markov.units import test_notes

        assert self.learnt is not None
        return test_notes([normalise(u.text) for u in test], self.learnt.decoding.words)
