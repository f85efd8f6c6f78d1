"""Query by example: which recordings hold a spoken query (Yang et al. 2021, section 3.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from benchmark.core import DownstreamCard, Metric, Record, Utterance
from benchmark.errors import SuperbError

if TYPE_CHECKING:  # listing tasks is to stay instant
    from torch import Tensor

QUERY: Final = "query"
DOCUMENT: Final = "document"
# Between the terms of a document.
SEPARATOR: Final = ";"
# Of a score that are kept, as there are many: those that single precision has.
_DIGITS: Final = 6
# The least that is divided by.
_TINY: Final = 1e-9


class Qbe:
    """The documents of a split ranked for each of its queries, by dynamic time warping.

    Nothing is trained: layers are searched as they are, one by one. The column ``role`` says what
    an utterance is; ``term`` holds what a query asks for, or all that a document holds, separated
    by ``;``. A document is a target of a query whose term it holds.
    """

    card = DownstreamCard(
        name="qbe",
        title="Query by example",
        version=1,
        metrics=(Metric("mtwv", "higher", statistic="maximum-term-weighted-value"),),
        features="frames",
        needs=("role", "term"),
        head="dynamic time warping, no training",
        trained=False,
    )
    training: Mapping[str, Any] = {}

    def vocabulary(self, train: Sequence[Utterance]) -> tuple[str, ...]:
        """Nothing: there are no outputs."""
        return ()

    def example(self, index: int, seconds: float) -> Mapping[str, str]:
        """Queries of two terms, and documents that hold one of them."""
        return {"role": QUERY if index % 4 < 2 else DOCUMENT, "term": f"term {index % 2}"}

    def check_data(self, utterances: Sequence[Utterance]) -> None:
        """Raise for roles that are none, queries of several terms, and splits without a search.

        Raises:
            SuperbError: naming the first few utterances, or the split.
        """
        wrong = [
            f"{u.id}: role {u.value('role')!r}, term {u.value('term')!r}"
            for u in utterances
            if u.value("role") not in (QUERY, DOCUMENT)
            or (u.value("role") == QUERY and len(terms(u)) != 1)
        ]
        if wrong:
            more = f" … ({len(wrong)} in all)" if len(wrong) > 3 else ""
            raise SuperbError(
                f"utterances that cannot be searched: {'; '.join(wrong[:3])}{more}. The column "
                f"'role' holds {QUERY} or {DOCUMENT}; 'term' holds the one term of a query, or all "
                f"terms of a document, separated by {SEPARATOR!r}"
            )
        for split in ("valid", "test"):
            queries, documents = roles([u for u in utterances if u.split == split])
            for role, own in ((QUERY, queries), (DOCUMENT, documents)):
                if not own:
                    raise SuperbError(
                        f"no {role} in split {split}: each of valid and test needs queries and "
                        "documents of its own, by the column 'role'"
                    )
            if not (held := _held(documents)) & (asked := _held(queries)):
                raise SuperbError(
                    f"no document of {split} holds the term of any query: queries ask for "
                    f"{_some(asked)}; documents hold {_some(held)}. Terms are compared letter by "
                    "letter"
                )

    def test_notes(self, test: Sequence[Utterance], vocabulary: Sequence[str]) -> list[str]:
        """Terms that are left out, and what stands for speakers who are not known."""
        queries, documents = roles(test)
        notes = []
        if unheld := _held(queries) - _held(documents):
            notes.append(f"terms that no test document holds, left out: {_some(unheld)}")
        if not all(u.speaker for u in test):
            notes.append("speakers are not known: queries and documents stand for them")
        return notes

    def search(self, states: Sequence[Tensor], utterances: Sequence[Utterance]) -> list[Any]:
        """How well each query fits into each document of a split.

        Features are standardised by dimension over all frames of queries and documents, and the
        scores of a query over the documents (both as published).

        Args:
            states: of one layer, ``[frame, dim]`` for each utterance.
            utterances: queries and documents.

        Returns:
            For a query the scores of all documents in their order, as floats; None for a document.

        Raises:
            SuperbError: no query or no document, and queries longer than every document.
        """
        import torch

        from downstreams import dtw

        count = sum(map(len, states))
        mean = torch.stack([own.double().sum(dim=0) for own in states]).sum(dim=0) / count
        squares = torch.stack([(own.double() - mean).square().sum(dim=0) for own in states]).sum(0)
        deviation = (squares / max(count - 1, 1)).sqrt().clamp(min=_TINY)
        asked, searched = (
            [own for own, u in zip(states, utterances, strict=True) if u.value("role") == role]
            for role in (QUERY, DOCUMENT)
        )
        for role, own in ((QUERY, asked), (DOCUMENT, searched)):
            if not own:
                raise SuperbError(
                    f"no {role} of {utterances[0].split} is left to search: none of their "
                    "recordings can be used. superb data check tells what is wrong with each"
                )
        longest = max(map(len, searched))
        if long := [
            u.id
            for own, u in zip(states, utterances, strict=True)
            if u.value("role") == QUERY and len(own) > longest
        ]:
            raise SuperbError(
                f"queries that are longer than every document of {utterances[0].split}: "
                f"{_some(set(long))}. A query is a part of a document: take its columns 'role' "
                "and 'term' for exchanged, or cut it"
            )
        raw = dtw.scores(asked, searched, lambda own: (own.double() - mean) / deviation).double()
        spread = raw.std(dim=1, correction=0, keepdim=True).clamp(min=_TINY)
        rows = iter(((raw - raw.mean(dim=1, keepdim=True)) / spread).tolist())
        return [next(rows) if u.value("role") == QUERY else None for u in utterances]

    def records(
        self, utterances: Sequence[Utterance], answers: Sequence[Sequence[float] | None]
    ) -> list[Record]:
        """Each query in each document: whether it is there, and its score."""
        queries, documents = roles(utterances)
        held = [terms(document) for document in documents]
        numbers = {term: place for place, term in enumerate(sorted(_held(queries)))}
        records = []
        for query, scores in zip(utterances, answers, strict=True):
            if scores is None:
                continue
            (term,) = terms(query)
            for document, own, score in zip(documents, held, scores, strict=True):
                pair = (query.speaker or query.id, document.speaker or document.id)
                records.append(
                    Record(
                        f"{query.id}|{document.id}",
                        tuple(dict.fromkeys(pair)),
                        "yes" if term in own else "no",
                        f"{score:.3f}",
                        {"mtwv": (round(score, _DIGITS), int(term in own), numbers[term])},
                    )
                )
        return records


def terms(utterance: Utterance) -> set[str]:
    """What a query asks for, or all that a document holds."""
    parts = (part.strip() for part in utterance.value("term").split(SEPARATOR))
    return {part for part in parts if part}


def roles(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Queries and documents."""
    of_role: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        of_role[utterance.value("role")].append(utterance)
    return of_role[QUERY], of_role[DOCUMENT]


def _held(utterances: Sequence[Utterance]) -> set[str]:
    return set().union(*map(terms, utterances))


def _some(names: set[str], most: int = 3) -> str:
    more = f" … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(map(repr, sorted(names)[:most])) + more
