"""Phone recognition: phones by CTC from every frame by itself (Yang et al. 2021, section 3.1)."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from benchmark.answers import Answer, Reply
from benchmark.arpabet import PHONES, without_stress
from benchmark.core import DownstreamCard, Metric, Record, Utterance
from benchmark.errors import SuperbError
from downstreams import ctc
from downstreams.text import word_errors

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Generator, Tensor, nn

_STRESSED: Final = frozenset(PHONES) - {without_stress(phone) for phone in PHONES}


class Pr:
    """The phones of an utterance, from the column ``phones``: symbols between spaces.

    Phones of English with their stress have all 71 outputs of ARPAbet, whichever of them train
    has; phones of any other kind have those of train.
    """

    card = DownstreamCard(
        name="pr",
        title="Phone recognition",
        version=1,
        metrics=(Metric("per", "lower"), Metric("per_no_stress", "lower")),
        features="frames",
        needs=("phones",),
        head="linear, linear of every frame; phone CTC, greedy",
    )
    training: Mapping[str, Any] = {"head": {"projection": 256}}

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """The CTC blank and the inventory."""
        return (ctc.BLANK, *_inventory(train))

    def example(self, index: int, seconds: float) -> Mapping[str, str]:
        """Some twelve phones a second, of all."""
        places = range(index, index + max(1, round(12 * seconds)))
        return {"phones": " ".join(PHONES[7 * place % len(PHONES)] for place in places)}

    def check_data(self, utterances: Sequence[Utterance]) -> None:
        """Raise for phones outside the inventory.

        Raises:
            SuperbError: naming the first few, how often they occur and what may be meant.
        """
        known = _inventory([u for u in utterances if u.split == "train"])
        strange = Counter(
            (phone, utterance.split)
            for utterance in utterances
            for phone in _phones(utterance)
            if phone not in known
        )
        if not strange:
            return
        shown = []
        for (phone, split), count in strange.most_common(3):
            near = difflib.get_close_matches(phone.upper(), known, n=2, cutoff=0.6)
            meant = f"; {' or '.join(near)}?" if near else ""
            shown.append(f"{phone!r} ({count} in {split}{meant})")
        more = f" … ({len(strange)} in all)" if len(strange) > 3 else ""
        which = "the 71 of ARPAbet with stress" if known == PHONES else f"the {len(known)} of train"
        raise SuperbError(
            f"phones outside the inventory, {which}: {'; '.join(shown)}{more}. Correct them in "
            "the column 'phones', where phones stand between spaces, or leave the utterances out"
        )

    def head(
        self,
        dim: int,
        hop_s: float,
        outputs: int,
        settings: Mapping[str, Any],
        generator: Generator,
    ) -> nn.Module:
        """Linear, linear; setting: ``projection``."""
        from downstreams.heads import FrameClassifier

        return FrameClassifier(dim, settings["projection"], outputs)

    def notes(
        self,
        train: Sequence[Utterance],
        lengths: Sequence[int],
        hop_s: float,
        settings: Mapping[str, Any],
    ) -> list[str]:
        """Count the utterances that have too few frames for their phones."""
        return ctc.too_long("phones", [_phones(utterance) for utterance in train], lengths, hop_s)

    def loss(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> Tensor:
        """CTC loss per phone, averaged over the batch."""
        targets = [ctc.places(_phones(utterance), vocabulary) for utterance in utterances]
        return ctc.loss(logits, lengths, targets)

    def answer(
        self,
        logits: Tensor,
        lengths: Tensor,
        utterances: Sequence[Utterance],
        vocabulary: Sequence[str],
    ) -> list[list[str]]:
        """The phones that are heard in each utterance."""
        return ctc.best_paths(logits, lengths, vocabulary)

    def explain(self, reply: Reply) -> Answer:
        """The phones, with times and confidence."""
        (symbols,) = ctc.heard(reply.logits, reply.lengths)
        phones = [(symbol, reply.vocabulary[symbol.place]) for symbol in symbols]
        return Answer(
            reply.utterance.id,
            " ".join(reply.answer),
            ctc.confidence(symbols),
            tuple(ctc.span([symbol], phone, reply.hop_s) for symbol, phone in phones),
        )

    def records(
        self, utterances: Sequence[Utterance], answers: Sequence[Sequence[str]]
    ) -> list[Record]:
        """Phone errors of each utterance, with stress and without."""
        records = []
        for utterance, heard in zip(utterances, answers, strict=True):
            said = _phones(utterance)
            plain = [" ".join(map(without_stress, phones)) for phones in (said, heard)]
            reference, hypothesis = " ".join(said), " ".join(heard)
            values = {
                "per": word_errors(reference, hypothesis),
                "per_no_stress": word_errors(*plain),
            }
            records.append(
                Record(utterance.id, (utterance.speaker,), reference, hypothesis, values)
            )
        return records


def _phones(utterance: Utterance) -> list[str]:
    return utterance.value("phones").split()


def _inventory(train: Sequence[Utterance]) -> tuple[str, ...]:
    """All phones that can be answered."""
    found = {phone for utterance in train for phone in _phones(utterance)}
    return PHONES if found & _STRESSED else tuple(sorted(found))
