"""Whether a result of a stranger may stand on a leaderboard: all that its files can be asked.

A checksum is no signature: whoever makes up every answer of a test set, and hashes it, is not found
out here. What is found out is a file that was edited, cut short or put together by hand, a score
that its own table of utterances does not come to, and a protocol that is not the one it names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError
from benchmark.metrics import check_record
from benchmark.protocol import content_sha256
from benchmark.scoring.results import (
    Result,
    card_metrics,
    read_records,
    read_result,
    run_id,
    table_file,
)
from leaderboard.read.fields import base_of, identity_of

if TYPE_CHECKING:
    from jiwer import AlignmentChunk

MOST_BYTES: Final = 256_000_000
"""Of one file of a result; the largest known is a tenth of it."""

_RUN_ID: Final = re.compile(r"[0-9a-f]{16}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CLOSE: Final = 1e-6  # relative; another machine adds up in another order
_EARLY: Final = timedelta(days=1)  # by which a clock may be fast
# Tasks whose counts follow from the texts beside them, by metric.
_FROM_TEXTS: Final = {"asr": ("wer", "cer"), "pr": ("per",)} | dict.fromkeys(
    ("ks", "sid", "ic"), ("accuracy",)
)


@dataclass(frozen=True)
class Expected:
    """What a task, a protocol and an encoder are known to be.

    Attributes:
        metrics: of the task, the one that ranks first.
        protocol_sha256: of the values that the protocol of that name and version has for it.
        heard: corpora that the encoder of that name was trained on, as far as that is known.
    """

    metrics: tuple[Metric, ...]
    protocol_sha256: str
    heard: frozenset[str] = frozenset()


Standard = Callable[[Result], Expected]
"""What is known of what a result names; raises SuperbError for an unknown task or protocol."""


class RefusedError(SuperbError):
    """A result that a leaderboard does not take, and why."""


def verify(path: Path | str, standard: Standard) -> Result:
    """Read a result and hold it to everything that it says.

    Args:
        path: of the JSON file; the table of utterances lies beside it.
        standard: what tasks and protocols are known to be.

    Raises:
        RefusedError: the first thing that is wrong with it, in one sentence.
    """
    path = Path(path)
    for file in (path, table_file(path)):
        if file.is_symlink():
            raise RefusedError(f"{file} is a link: give the file itself")
        if file.is_file() and file.stat().st_size > MOST_BYTES:
            raise RefusedError(f"{file} is larger than {MOST_BYTES / 1e6:.0f} MB")
    try:
        result = read_result(path)
        found = next(_problems(path, result, standard), None)
    except RefusedError:
        raise
    except SuperbError as error:
        raise RefusedError(str(error)) from error
    if found is not None:
        raise RefusedError(f"{path}: {found}")
    return result


def _problems(path: Path, result: Result, standard: Standard) -> Iterator[str]:
    """What is wrong, the cheapest to find out first; the table is read for the last of it."""
    if result.status != "finished":
        yield f"the run {result.status}; only finished ones are taken"
    yield from _about_identity(path, result)
    yield from _about_cards(result)
    yield from _about_standard(result, standard(result))
    yield from _about_score(result, read_records(path))


def _about_identity(path: Path, result: Result) -> Iterator[str]:
    if not _RUN_ID.fullmatch(result.run_id) or result.run_id != run_id(result.identity):
        yield f"its run id {result.run_id:.40} is not the hash of its identity"
    if path.stem != result.run_id:
        yield f"it holds run {result.run_id}: the file was renamed"
    told = {
        "upstream.name": result.upstream["name"],
        "downstream.name": result.downstream["name"],
        "downstream.version": result.downstream["version"],
        "corpus.name": result.corpus["name"],
        "corpus.sha256": result.corpus["sha256"],
        **{f"protocol.{key}": result.protocol.get(key) for key in ("name", "version", "sha256")},
    }
    for name, value in told.items():
        part, _, key = name.partition(".")
        if identity_of(result, part, key) != str(value):
            yield f"{name} is {value!r:.60}, and {identity_of(result, part, key)!r:.60} in identity"
    for name in ("layer", "seeds"):
        if result.identity.get(name) != getattr(result, name):
            yield f"{name} is not that of its identity"
    if not identity_of(result, "upstream", "fingerprint"):
        yield "it does not say which weights were scored (identity.upstream.fingerprint)"
    weights = result.encoder.get("weights_sha256")
    if weights is not None and not (isinstance(weights, str) and _SHA256.fullmatch(weights)):
        yield f"encoder.weights_sha256 is no hash: {weights!r:.40}"


def _about_cards(result: Result) -> Iterator[str]:
    """Whether a reader can tell what was scored, and what it has heard."""
    card = result.upstream
    heard = card.get("trained_on", "")
    if heard is not None and not (
        isinstance(heard, list) and all(isinstance(name, str) for name in heard)
    ):
        yield "its encoder's card has no trained_on: a list of corpora, or null for undisclosed"
    if heard != [] and not _text(card, "licence"):
        yield (
            "its encoder's card has no licence; name the one its weights are under, or "
            '"undisclosed", and run again'
        )
    if not _text(card, "family"):
        yield "its encoder's card has no family"
    if not _text(result.corpus, "licence"):
        yield "its corpus has no licence"
    try:
        created = datetime.fromisoformat(result.created)
    except ValueError:
        yield f"created is no time: {result.created!r:.40}"
        return
    if created.tzinfo is None:
        yield f"created has no time zone: {result.created}"
    elif created > datetime.now(UTC) + _EARLY:
        yield f"it was created in the future: {result.created}"


def _text(card: Mapping[str, Any], name: str) -> bool:
    return isinstance(card.get(name), str) and bool(card[name].strip())


def _about_standard(result: Result, expected: Expected) -> Iterator[str]:
    own = card_metrics(result)
    known = {metric.name: metric for metric in expected.metrics}
    for metric in own:  # with a language model there is one more of each
        meant = known.get(metric.name) or known.get(metric.name.removesuffix("_lm"))
        if meant is None or asdict(meant) | {"name": metric.name} != asdict(metric):
            yield f"{metric.name} is not a metric of {result.downstream['name']} as it is defined"
    if own[0] != expected.metrics[0] or not {metric.name for metric in own} >= known.keys():
        yield f"its metrics are not those of {result.downstream['name']}: {', '.join(known)}"
    if result.metrics.keys() != {metric.name for metric in own}:
        yield "not every metric of the task was scored"
    named = f"protocol {result.protocol['name']} version {result.protocol['version']}"
    if content_sha256(result.protocol) != result.protocol.get("sha256"):
        yield f"the values of its protocol do not have the hash that it gives for {named}"
    finished = [row for row in result.learning_rate_curve if row["status"] == "finished"]
    trained = {row["learning_rate"] for row in finished} & set(result.protocol["learning_rates"])
    if result.learning_rate_curve and result.learning_rate not in {*trained, None}:
        yield f"no head was trained to the end at its learning rate, {result.learning_rate:g}"
    if result.protocol["sha256"] != expected.protocol_sha256:
        yield (
            f"its values are not those of {named} for {result.downstream['name']}: give a protocol "
            "that was changed a name of its own"
        )
    heard = result.upstream.get("trained_on")  # who does not disclose it claims nothing
    if heard is not None and (left_out := sorted(expected.heard - set(heard))):
        yield (
            f"its card leaves out what {result.upstream['name']} is known to have heard: "
            f"{', '.join(left_out)}. Give an encoder of your own another name"
        )


def _about_score(result: Result, records: Mapping[int, Sequence[Record]]) -> Iterator[str]:
    """Whether the table of utterances comes to what the result says."""
    from benchmark.metrics import score
    from benchmark.scoring.statistics import interval_of, seed_std

    if list(records) != list(result.seeds):
        yield f"its table holds seeds {list(records)}, and it names {list(result.seeds)}"
        return
    stacked = [record for own in records.values() for record in own]
    if len({(record.id, record.fold) for record in stacked}) * len(records) != len(stacked):
        yield "its table holds an utterance twice, or not for every seed"
    yield from _about_counts(result, stacked)
    for metric in card_metrics(result):
        told = result.metrics[metric.name]
        found = asdict(interval_of(stacked, metric, seeds=len(records)))
        by_seed = [score(own, metric) for own in records.values()]
        found["seed_std"] = seed_std(by_seed)
        told_seeds = [entry["metrics"].get(metric.name) for entry in result.per_seed]
        if not all(map(_same, told_seeds, by_seed)) or len(told_seeds) != len(by_seed):
            yield f"{metric.name} by seed is not what its table of utterances comes to"
        for key, value in found.items():
            if not _same(told.get(key, False if key == "by_utterance" else None), value):
                yield (
                    f"{metric.name}: {key} is {told.get(key)}, and its table of utterances comes "
                    f"to {value}"
                )


def _about_counts(result: Result, records: Sequence[Record]) -> Iterator[str]:
    """Whether what each utterance counts is possible, and follows from its texts where it does."""
    metrics = card_metrics(result)
    for record in records:
        try:
            check_record(record, metrics)
        except ValueError as error:
            yield f"its table of utterances is wrong: {error}"
        for metric in metrics:
            values = record.values[metric.name]
            most = values[-1] if metric.direction == "higher" else math.inf
            if metric.statistic == "ratio" and not 0 <= values[0] <= most:
                yield f"{record.id} counts {values[0]:g} of {values[1]:g} in {metric.name}"
    for name in _FROM_TEXTS.get(base_of(result), ()):
        for record, counted in zip(records, _counted(name, records), strict=True):
            if record.values[name] != counted:
                yield f"{name} of {record.id} does not follow from its reference and hypothesis"


def _counted(metric: str, records: Sequence[Record]) -> list[tuple[float, float]]:
    """What reference and hypothesis of each come to."""
    if metric == "accuracy":
        return [(int(record.reference == record.hypothesis), 1) for record in records]
    import jiwer

    process = jiwer.process_characters if metric == "cer" else jiwer.process_words
    said = [record for record in records if record.reference.strip()]  # jiwer wants something said
    found = process([r.reference for r in said], [r.hypothesis for r in said]) if said else None
    counts = {
        id(record): (sum(_edits(chunk) for chunk in chunks), len(parts))
        for record, chunks, parts in (
            zip(said, found.alignments, found.references, strict=True) if found else ()
        )
    }
    return [counts.get(id(r), (_length(metric, r.hypothesis), 0)) for r in records]


def _length(metric: str, text: str) -> int:
    return len(text if metric == "cer" else text.split())


def _edits(chunk: AlignmentChunk) -> int:
    if chunk.type == "equal":
        return 0
    lengths = chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
    return max(lengths)


def _same(told: object, found: object) -> bool:
    """Whether two values are one, but for the rounding of sums."""
    if isinstance(told, bool | None) or isinstance(found, bool | None):
        return told is found
    if not isinstance(told, int | float) or not isinstance(found, int | float):
        return False
    return math.isclose(told, found, rel_tol=_CLOSE, abs_tol=_CLOSE)
