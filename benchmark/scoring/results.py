"""Result files: one JSON file per run, and beside it one CSV row per test record and seed.

``<output>/<downstream>/<upstream>/<run_id>.json`` is written last and atomically, so its presence
means that everything it speaks of is on disk. Nothing here imports torch or pandas: a leaderboard
is a function of these files alone.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import io
import json
import logging
import math
import operator
import sys
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, NotRequired, TypedDict, get_args
from urllib.parse import quote

from benchmark.core import Direction, Metric, Record
from benchmark.errors import SuperbError
from benchmark.metrics import check_record, find_statistic
from benchmark.scoring.files import PARTIAL, explained, intact, replace_together, signed

if TYPE_CHECKING:
    import pandas

    from benchmark.scoring.statistics import Interval

SCHEMA = 3
"""Version of the file format; raised when a reader of the old one could misread the new one.

1: the checksum is of the canonical JSON, whatever the file's layout. 2: of the file's bytes.
3: the task's card has a table for each metric, instead of names that share one direction.
"""

IDENTITY_VERSION = 1
"""Version of how an identity becomes a run id; raised only when old ids must not be found."""

FEWEST_CLUSTERS = 4
"""With fewer speakers no interval is shown, and nothing is tested.

One over three is two to three times as wide as an error rate itself, and that width is mostly luck
(docs/statistics.md, "When there is none").
"""

MOST_PERCENT = 1000.0
"""An interval that goes beyond ten errors per word is not shown: it leaves nothing out."""

Status = Literal["finished", "failed"]
PointStatus = Literal["finished", "dropped", "failed"]

HEAD_CARD: Final = ".head.json"
"""What the name of a head's card ends in, which may lie beside a result (`answering.saved`)."""

_NAME_LIMIT = 150  # file systems allow 255 bytes a name; the rest is for the hash and safety

_log = logging.getLogger(__name__)


class DamagedResultError(SuperbError):
    """A result file that cannot be trusted: cut short, edited, or not a result at all."""


class NewerResultError(SuperbError):
    """A result file in a format that this version does not know yet."""


class MetricValue(TypedDict):
    """A score with its interval, in the metric's unit; ``seed_std`` is null for one seed."""

    value: float
    low: float
    high: float
    confidence: float
    clusters: int
    utterances: int
    seed_std: float | None
    by_utterance: NotRequired[bool]


class LearningRatePoint(TypedDict):
    """One learning rate of the grid; ``valid`` is the mean over seeds, in the metric's unit."""

    learning_rate: float
    valid: float | None
    status: PointStatus
    updates: int
    reason: str


class SeedScore(TypedDict):
    """What one seed reached on test, and on valid at its best update, in the metric's unit."""

    seed: int
    metrics: dict[str, float]
    valid: float | None
    best_update: int
    updates: int
    layer_weights: list[float] | None


class FoldScore(TypedDict):
    """What one fold came to, seeds averaged; its learning rate is null where all of them failed."""

    fold: str
    learning_rate: float | None
    metrics: dict[str, float]
    valid: float | None
    utterances: int


class HistoryPoint(TypedDict):
    """One validation during training."""

    learning_rate: float
    seed: int
    update: int
    train_loss: float | None
    valid: float | None
    valid_loss: NotRequired[float | None]


class SkippedAudio(TypedDict):
    """An utterance that was left out, and why."""

    utterance: str
    reason: str


@dataclass(frozen=True)
class Result:
    """Everything one run found out; field names are the keys of the JSON file.

    Attributes:
        run_id: hash of `identity`, and the file's name.
        status: ``finished``, or ``failed`` when no learning rate led to a usable head.
        created: when, in UTC, as ISO 8601.
        identity: everything the score depends on.
        upstream: the encoder's card.
        downstream: the task's card; `card_metrics` reads its metrics.
        corpus: name, sha256, licence, source, note, and size of each split.
        protocol: every value that was used.
        layer: ``last``, ``weighted-sum``, ``weighted-sum-norm`` or a layer's number.
        seeds: of the heads.
        metrics: test scores by metric, the ranking one first.
        learning_rate: the one chosen on valid; None when the run failed, or when its folds chose
            different ones.
        learning_rate_at_edge: True when it is the smallest or the largest of the grid.
        learning_rate_curve: every learning rate tried.
        per_seed: test scores of each seed.
        history: validations during training.
        layer_weights: mean over seeds, or None.
        layer_norms: mean L2 norm of the frames of each layer, or None.
        skipped_audio: utterances left out.
        warnings: what a reader of the score must know.
        timings: seconds by phase.
        encoder: ``parameters``, ``throughput`` in seconds of audio per second or None, and
            ``weights_sha256`` of its weights and settings, whatever code computed it, or None.
        provenance: versions, commit, machine.
        folds: what each fold came to; empty for one partition.
        layer_scores: of each layer by itself on valid, of a task that trains nothing; else None,
            and not in the file.
        attention: what a head that attends looked at, in a few utterances of test, as
            `benchmark.core.Attention`; else empty, and not in the file.
        schema: version of this format.
        utterances_sha256: of the CSV file beside the JSON file; filled in by `write_result`.
        checksum: of the file as far as this field, its last; filled in by `write_result`.
    """

    run_id: str
    status: Status
    created: str
    identity: Mapping[str, Any]
    upstream: Mapping[str, Any]
    downstream: Mapping[str, Any]
    corpus: Mapping[str, Any]
    protocol: Mapping[str, Any]
    layer: str
    seeds: Sequence[int]
    metrics: Mapping[str, MetricValue]
    learning_rate: float | None
    learning_rate_at_edge: bool
    learning_rate_curve: Sequence[LearningRatePoint]
    per_seed: Sequence[SeedScore]
    history: Sequence[HistoryPoint]
    layer_weights: Sequence[float] | None
    layer_norms: Sequence[float] | None
    skipped_audio: Sequence[SkippedAudio]
    warnings: Sequence[str]
    timings: Mapping[str, float]
    encoder: Mapping[str, Any]
    provenance: Mapping[str, Any]
    folds: Sequence[FoldScore] = field(default_factory=list)
    layer_scores: Sequence[float] | None = None
    attention: Sequence[Mapping[str, Any]] = field(default_factory=list)
    schema: int = SCHEMA
    utterances_sha256: str = ""
    checksum: str = ""


def run_id(identity: Mapping[str, Any]) -> str:
    """Name of the run with this identity: 16 hexadecimal digits.

    The order of keys does not matter, and a tuple counts as a list; 1 and 1.0 differ.

    Raises:
        ValueError: for NaN or infinity.
        TypeError: for what JSON does not have.
    """
    text = canonical_json({"identity_version": IDENTITY_VERSION, "identity": dict(identity)})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def canonical_json(value: object) -> str:
    """The one spelling of a value that hashes are taken of: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def safe_name(name: str) -> str:
    """A readable folder name; different names give different ones.

    Everything but letters, digits and ``_ - . ~`` is percent-encoded, and so is a dot in front,
    which would hide the folder or leave it. A very long name ends in its hash.

    >>> safe_name("hf:org/model")
    'hf%3Aorg%2Fmodel'
    """
    safe = quote(name, safe="", errors="surrogatepass")
    if safe.startswith("."):
        safe = "%2E" + safe[1:]
    if len(safe) > _NAME_LIMIT:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
        # A lone % cannot come out of the encoding, so no other name ends like this one.
        safe = f"{safe[:_NAME_LIMIT]}%~{digest}"
    return safe or "%"


def result_path(output: Path | str, downstream: str, upstream: str, run_id: str) -> Path:
    """Where the result of a run is, or will be."""
    return Path(output) / safe_name(downstream) / safe_name(upstream) / f"{run_id}.json"


def utterances_path(path: Path | str) -> Path:
    """The CSV file beside a result's JSON file, which may be compressed by gzip."""
    return Path(path).with_suffix(".utterances.csv")


def card_metrics(result: Result) -> tuple[Metric, ...]:
    """The metrics of a result's task, the one that ranks first."""
    keys = [field.name for field in dataclasses.fields(Metric)]
    return tuple(
        Metric(**{key: entry[key] for key in keys}) for entry in result.downstream["metrics"]
    )


def no_interval(found: Mapping[str, object] | Interval, unit: str) -> str:
    """Why the interval of a score or of a difference is not shown, in a word or two; "" if it is.

    Files keep both ends. This is asked wherever one is shown or used, so that old files and new
    ones are shown alike.

    Args:
        found: of a result file or of `benchmark.scoring.statistics`.
        unit: of the metric.
    """
    facts: Mapping[str, Any] = found if isinstance(found, Mapping) else vars(found)
    clusters: int = facts["clusters"]
    if clusters < FEWEST_CLUSTERS:
        noun = "utterance" if facts.get("by_utterance") else "speaker"
        return f"{clusters} {noun}{'' if clusters == 1 else 's'}"
    # a search in which every query finds all, or nothing; a difference may well be none at all
    if facts["low"] == facts["high"] and "standard_error" not in facts:
        return "nothing varies"
    if unit == "%" and max(-facts["low"], facts["high"]) > MOST_PERCENT:
        return f"beyond {MOST_PERCENT:g} %"
    return ""


def shown_score(score: MetricValue, unit: str) -> dict[str, Any]:
    """A score for programs: its ends are None where `no_interval` says why."""
    ends = dict.fromkeys(("low", "high")) if no_interval(score, unit) else {}
    return {**score, **ends}


def shown_result(result: Result) -> Result:
    """A result whose scores are `shown_score`."""
    units = {metric.name: metric.unit for metric in card_metrics(result)}
    shown: Any = {
        name: shown_score(score, units.get(name, "")) for name, score in result.metrics.items()
    }
    return dataclasses.replace(result, metrics=shown)


def write_result(
    output: Path | str, result: Result, records_per_seed: Mapping[int, Sequence[Record]]
) -> Path:
    """Write a result and its records; replace what was there under the same run id.

    Both files are complete on disk under temporary names before either gets its own, the CSV
    first: whatever happens in between, no JSON file vouches for a CSV file that is not there.

    Returns:
        The JSON file.

    Raises:
        SuperbError: when the disk is full or the folder cannot be written; nothing is left over.
        ValueError: when a number is NaN or infinite, a metric is not on the task's card, or a
            record belongs to more than two clusters; the message names it.
    """
    table = _format_records(result, records_per_seed)
    path = result_path(
        output, str(result.downstream["name"]), str(result.upstream["name"]), result.run_id
    )
    document: dict[str, Any] = {
        field.name: getattr(result, field.name) for field in dataclasses.fields(Result)
    }
    document["utterances_sha256"] = hashlib.sha256(table).hexdigest()
    del document["schema"], document["checksum"]
    if result.layer_scores is None:
        del document["layer_scores"]
    if not result.attention:
        del document["attention"]
    # The schema comes first: it says how to read the rest.
    document = {"schema": SCHEMA, **document}
    _refuse_not_finite(document, "result")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_together([(utterances_path(path), table), (path, signed(document))])
    return path


def clear_partial(output: Path | str, run_ids: Collection[str]) -> None:
    """Remove what killed writers of some runs left half-written; nobody may be writing them now."""
    for path in Path(output).glob(f"*/*/.*{PARTIAL}"):
        if path.name[1:].partition(".")[0] in run_ids:
            with suppress(OSError):
                path.unlink(missing_ok=True)


def find_result(output: Path | str, downstream: str, upstream: str, run_id: str) -> Result | None:
    """The result of a run, finished or failed; None when it has to be run.

    A damaged result counts as none: a log warning names it, and the next `write_result` replaces
    it. So does one whose utterances are gone or changed, as it cannot be compared with others.

    Raises:
        NewerResultError: rather than have a file of a newer version overwritten.
    """
    path = result_path(output, downstream, upstream, run_id)
    if not path.exists():
        return None
    try:
        result = read_result(path)
        if result.run_id != run_id:
            raise DamagedResultError(f"{path} holds run {result.run_id}; it was renamed")
        _read_table(path, result)
    except DamagedResultError as error:
        _log.warning("%s It is not used, and the run is done again.", error)
        return None
    return result


def read_result(path: Path | str, *, history: bool = True) -> Result:
    """Read one JSON file, checked.

    Args:
        path: of the file.
        history: False to leave the history empty: it is most of a file, and of the time.

    Raises:
        NewerResultError: when it was written by a newer version.
        DamagedResultError: when it is no result, incomplete, or changed since it was written.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedResultError(f"{path} cannot be read: {error.strerror}.") from error
    if b"\r" in data:  # as some checkouts have it
        data = data.replace(b"\r\n", b"\n")
    document = _parse(path, data if history else _without_history(data))
    _check_schema(path, document)
    if document["schema"] == 1:  # its checksum is of everything
        document = _parse(path, data)
        whole = _intact_first_schema(document)
        if not history:
            document["history"] = []
    else:
        whole = intact(data)
    if not whole:
        raise DamagedResultError(
            f"{path} does not match its checksum: it was edited or damaged after it was written. "
            "Delete it and run again to get it back."
        )
    checksum = document.pop("checksum")
    if document["schema"] < 3:
        _upgrade(path, document)
    document.setdefault("layer_scores", None)
    document.setdefault("attention", [])
    _check_fields(path, document)
    return Result(**document, checksum=checksum)


def read_records(path: Path | str, result: Result | None = None) -> dict[int, list[Record]]:
    """The records of the test set by seed, for the JSON file at `path`.

    Args:
        path: of the JSON file.
        result: what was read of it already.

    Raises:
        DamagedResultError: when the CSV file is missing, damaged, or belongs to another result.
    """
    return _read_table(Path(path), result or read_result(path, history=False))


def result_files(folder: Path | str) -> list[Path]:
    """Every JSON file in a folder of results, in a fixed order; cards of heads are none of them.

    Raises:
        SuperbError: when there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise SuperbError(
            f"{folder} {kind}; a folder of results is expected, e.g.: superb leaderboard results"
        )
    paths = sorted(path for path in folder.rglob("*.json") if not path.name.endswith(HEAD_CARD))
    if not paths:
        raise SuperbError(
            f"{folder} holds no results yet. Make one with: "
            f"superb run --upstream fbank --downstream ks --output {folder}"
        )
    return paths


def read_results(folder: Path | str, *, history: bool = True) -> tuple[list[Result], list[str]]:
    """All results in a folder, and one line for each file that had to be left out.

    Args:
        folder: with result files anywhere below it.
        history: as for `read_result`.

    Raises:
        SuperbError: when the folder does not exist or holds no JSON file.
    """
    results: list[Result] = []
    problems: list[str] = []
    for path in result_files(folder):
        try:
            results.append(read_result(path, history=history))
        except SuperbError as error:
            problems.append(str(error))
    return results, problems


def load_results(folder: Path | str) -> pandas.DataFrame:
    """All results of a folder as a tidy table, one row per result and metric.

    Files that are damaged or too new are left out, each with a log warning that names it.

    Raises:
        SuperbError: when there is no such folder, or no result in it.
    """
    results, problems = read_results(folder, history=False)
    for problem in problems:
        _log.warning("%s", problem)
    return to_frame(results)


def to_frame(results: Sequence[Result]) -> pandas.DataFrame:
    """A tidy table: one row per result and metric; a failed result is one row without a score."""
    import pandas

    columns = [
        *("run_id", "status", "created", "upstream", "downstream", "downstream_version", "corpus"),
        *(
            "corpus_sha256",
            "audio_sha256",
            "protocol",
            "protocol_version",
            "layer",
            "seeds",
            "learning_rate",
        ),
        *("metric", "value", "low", "high", "confidence", "clusters", "utterances", "seed_std"),
    ]
    rows: list[dict[str, object]] = []
    for result in results:
        common: dict[str, object] = {
            "run_id": result.run_id,
            "status": result.status,
            "created": result.created,
            "upstream": result.upstream["name"],
            "downstream": result.downstream["name"],
            "downstream_version": result.downstream["version"],
            "corpus": result.corpus["name"],
            "corpus_sha256": result.corpus["sha256"],
            "audio_sha256": result.corpus.get("audio_sha256"),
            "protocol": result.protocol.get("name"),
            "protocol_version": result.protocol.get("version"),
            "layer": result.layer,
            "seeds": len(result.seeds),
            "learning_rate": result.learning_rate,
        }
        shown = shown_result(result).metrics
        rows += [{**common, "metric": name, **scores} for name, scores in shown.items()]
        if not result.metrics:
            rows.append(common)
    # pandas has no text with half a surrogate pair, as the name of a file may have one
    plain = [{name: _spelled(value) for name, value in row.items()} for row in rows]
    return pandas.DataFrame(plain, columns=columns)


def _spelled(value: object) -> object:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


# Reading


def _check_schema(path: Path, document: Mapping[str, Any]) -> None:
    schema = document.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise DamagedResultError(
            f"{path} is not a result of superb: it has no schema number. Move it elsewhere."
        )
    if schema > SCHEMA:
        raise NewerResultError(
            f"{path} was written by a newer version of superb (schema {schema}; this one reads "
            f"up to {SCHEMA}). Upgrade with: pip install --upgrade superb"
        )


def _upgrade(path: Path, document: dict[str, Any]) -> None:
    """Give a document of schema 1 or 2 the form of today; its number stays."""
    card = document.get("downstream")
    if not isinstance(card, dict):
        return  # which is found out and named later
    old: dict[str, tuple[type, ...]] = {"metrics": (list,), "direction": (str,)}
    _check_entries(path, "downstream", card, old)
    direction = card.pop("direction")
    card["metrics"] = [
        {"name": name, "direction": direction, "statistic": "ratio", "unit": "%"}
        for name in card["metrics"]
    ]
    document.setdefault("folds", [])


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedResultError(
            f"{path} is not valid JSON ({error}). Delete it and run again to get it back."
        ) from error
    if not isinstance(document, dict):
        raise DamagedResultError(f"{path} is not a result of superb. Move it elsewhere.")
    return document


# Line breaks inside JSON strings are escaped, so these marks are found in no string.
_HISTORY, _AFTER_HISTORY = b'\n "history": [', b'\n "layer_weights": '


def _without_history(data: bytes) -> bytes:
    """The file as `write_result` lays it out, with an empty history; any other text as it is."""
    head, begin, rest = data.partition(_HISTORY)
    _, end, tail = rest.partition(_AFTER_HISTORY)
    return head + begin + b"]," + end + tail if begin and end else data


def _intact_first_schema(document: Mapping[str, Any]) -> bool:
    """Whether a file of schema 1 says what it said when it was written."""
    rest = {key: value for key, value in document.items() if key != "checksum"}
    try:
        text = canonical_json(rest)
    except ValueError:  # a number too large for a float, which Python reads as infinite
        return False
    return document.get("checksum") == hashlib.sha256(text.encode()).hexdigest()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_NUMBER = (int, float)
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("run_id", "created", "layer", "utterances_sha256"), (str,)),
    **dict.fromkeys(("identity", "upstream", "downstream", "corpus", "protocol"), (dict,)),
    **dict.fromkeys(("metrics", "timings", "encoder", "provenance"), (dict,)),
    **dict.fromkeys(("seeds", "learning_rate_curve", "per_seed", "history"), (list,)),
    **dict.fromkeys(("skipped_audio", "warnings", "folds", "attention"), (list,)),
    **dict.fromkeys(("layer_weights", "layer_norms", "layer_scores"), (list, type(None))),
    "schema": (int,),
    "status": (str,),
    "learning_rate": (*_NUMBER, type(None)),
    "learning_rate_at_edge": (bool,),
}
# What tables read without asking again.
_ENTRIES: dict[str, dict[str, tuple[type, ...]]] = {
    "upstream": {"name": (str,)},
    "downstream": {"name": (str,), "version": (int,), "metrics": (list,)},
    "corpus": {"name": (str,), "sha256": (str,)},
    "protocol": {"name": (str,), "version": (int, str)},
}
_LIST_ENTRIES: dict[str, dict[str, tuple[type, ...]]] = {
    "learning_rate_curve": {
        **dict.fromkeys(("status", "reason"), (str,)),
        "learning_rate": _NUMBER,
        "valid": (*_NUMBER, type(None)),
        "updates": (int,),
    },
    "per_seed": {"seed": (int,), "metrics": (dict,), "valid": (*_NUMBER, type(None))},
    "skipped_audio": {"utterance": (str,)},
    "attention": {"utterance": (str,), "symbols": (list,), "weights": (list,)},
    "folds": {
        "fold": (str,),
        "metrics": (dict,),
        **dict.fromkeys(("learning_rate", "valid"), (*_NUMBER, type(None))),
        "utterances": (int,),
    },
}
_CARD_METRIC: dict[str, tuple[type, ...]] = dict.fromkeys(
    ("name", "direction", "statistic", "unit"), (str,)
)
# There are hundreds of these; that they have what is read of them has to do.
_HISTORY_KEYS = {"learning_rate", "seed", "update", "valid"}
_METRIC_ENTRIES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("value", "low", "high", "confidence"), _NUMBER),
    **dict.fromkeys(("clusters", "utterances"), (int,)),
    "seed_std": (*_NUMBER, type(None)),
}


def _check_fields(path: Path, document: dict[str, Any]) -> None:
    """Make sure that what the dataclass promises holds, as a checksum says nothing of sense."""
    _check_entries(path, "result", document, _FIELD_TYPES)
    try:  # of the history, only drawings are made
        _refuse_not_finite({**document, "history": []}, "result")
    except (ValueError, RecursionError) as error:
        raise DamagedResultError(f"{path} is not a result of superb: {error}.") from error
    extra = sorted(set(document) - set(_FIELD_TYPES))
    if extra:
        raise DamagedResultError(f"{path} is not a result of superb: unknown {', '.join(extra)}.")
    for name, entries in _ENTRIES.items():
        _check_entries(path, name, document[name], entries)
    for name, scores in document["metrics"].items():
        if not isinstance(scores, dict):
            raise DamagedResultError(f"{path} is not a result of superb: metrics.{name} is wrong.")
        _check_entries(path, f"metrics.{name}", scores, _METRIC_ENTRIES)
    for name, entries in _LIST_ENTRIES.items():
        _check_list(path, name, document[name], entries)
    _check_items(path, "seeds", document["seeds"], int)
    for name in ("layer_weights", "layer_norms", "layer_scores"):
        _check_items(path, name, document[name] or (), *_NUMBER)
    for name in ("per_seed", "folds"):
        for entry in document[name]:
            _check_items(path, f"{name}.metrics", entry["metrics"].values(), *_NUMBER)
    for looked in document["attention"]:
        _check_items(path, "attention.symbols", looked["symbols"], str)
        _check_items(path, "attention.weights", looked["weights"], list)
        for weights in looked["weights"]:
            _check_items(path, "attention.weights", weights, *_NUMBER)
    metrics = document["downstream"]["metrics"]
    _check_list(path, "downstream.metrics", metrics, _CARD_METRIC)
    for metric in metrics:
        if metric["direction"] not in get_args(Direction):
            raise DamagedResultError(
                f"{path} is not a result of superb: the direction of {metric['name']} is "
                f"{metric['direction']!r:.40}."
            )
    if not all(
        isinstance(entry, dict) and entry.keys() >= _HISTORY_KEYS for entry in document["history"]
    ):
        raise DamagedResultError(f"{path} is not a result of superb: its history is wrong.")
    if not metrics:
        raise DamagedResultError(f"{path} is not a result of superb: the task has no metric.")
    if document["status"] not in get_args(Status):
        raise DamagedResultError(
            f"{path}: status is one of {', '.join(get_args(Status))}; got {document['status']!r}."
        )


def _check_items(path: Path, where: str, items: Iterable[object], *allowed: type) -> None:
    if wrong := [item for item in items if not isinstance(item, allowed)]:
        raise DamagedResultError(
            f"{path} is not a result of superb: {where} holds {wrong[0]!r:.40}."
        )


def _check_list(
    path: Path, where: str, given: list[Any], types: Mapping[str, tuple[type, ...]]
) -> None:
    for position, entry in enumerate(given):
        if not isinstance(entry, dict):
            raise DamagedResultError(
                f"{path} is not a result of superb: {where}[{position}] is wrong."
            )
        _check_entries(path, f"{where}[{position}]", entry, types)


def _check_entries(
    path: Path, where: str, given: dict[str, Any], types: Mapping[str, tuple[type, ...]]
) -> None:
    for name, allowed in types.items():
        value = given.get(name)
        if name not in given or not isinstance(value, allowed):
            found = "is missing" if name not in given else f"is {value!r:.40}"
            raise DamagedResultError(f"{path} is not a result of superb: {where}.{name} {found}.")


# Of a compressed table, whoever it is from.
_MOST_BYTES = 1 << 31


def table_file(path: Path | str) -> Path:
    """Where the utterances of the JSON file at `path` are: plain, or compressed if only that is."""
    table = utterances_path(path)
    packed = table.with_name(f"{table.name}.gz")
    return packed if packed.exists() and not table.exists() else table


def _read_table(path: Path, result: Result) -> dict[int, list[Record]]:
    table = table_file(path)
    try:
        if table.suffix == ".gz":
            with gzip.open(table) as file:
                data = file.read(_MOST_BYTES)
        else:
            data = table.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DamagedResultError(
            f"{table}, the utterances of {path.name}, cannot be read: {reason}."
        ) from error
    if hashlib.sha256(data).hexdigest() != result.utterances_sha256:
        raise DamagedResultError(
            f"{table} was changed after it was written: it does not match {path.name}."
        )
    try:
        return _parse_table(data.decode(errors="surrogatepass"), result)
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise DamagedResultError(
            f"{table} is no table of the utterances of {path.name} ({type(error).__name__}: "
            f"{error!s:.80})."
        ) from error


def _parse_table(text: str, result: Result) -> dict[int, list[Record]]:
    records: dict[int, list[Record]] = {}
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = {metric.name: _value_columns(metric) for metric in card_metrics(result)}
    # A failed run has no scores.
    present = set(rows.fieldnames or ())
    columns = {
        name: own for name, own in columns.items() if name in result.metrics or set(own) <= present
    }
    for row in rows:
        other = row.get(_OTHER, "")
        record = Record(
            id=row["utterance"],
            clusters=(row["speaker"], other) if other else (row["speaker"],),
            reference=row["reference"],
            hypothesis=row["hypothesis"],
            values={
                name: tuple(_number(row[column]) for column in own) for name, own in columns.items()
            },
            fold=row.get(_FOLD, ""),
        )
        records.setdefault(int(row["seed"]), []).append(record)
    return records


def _number(text: str) -> float:
    """An int stays one; what is not finite is no number of ours."""
    try:
        number: float = int(text)
    except ValueError:
        number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


# The table of records. Text is always quoted: it may hold commas, quotes and line ends.
_OTHER, _FOLD = "other_speaker", "fold"


def _value_columns(metric: Metric) -> list[str]:
    return [f"{metric.name}_{part}" for part in find_statistic(metric.statistic).fields]


# Writing


def _format_records(result: Result, records_per_seed: Mapping[int, Sequence[Record]]) -> bytes:
    """The CSV file."""
    records = [record for own in records_per_seed.values() for record in own]
    scored = {*result.metrics, *(name for record in records for name in record.values)}
    metrics = [metric for metric in card_metrics(result) if metric.name in scored]
    if extra := sorted(scored - {metric.name for metric in metrics}):
        raise ValueError(f"{', '.join(extra)}: scored, but no metric of the task's card")
    two = any(len(record.clusters) > 1 for record in records)
    folds = any(record.fold for record in records)
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    columns = [column for metric in metrics for column in _value_columns(metric)]
    optional = [*[_OTHER] * two, *[_FOLD] * folds]
    writer.writerow(
        ["seed", "utterance", "speaker", *optional, "reference", "hypothesis", *columns]
    )
    for seed, own in records_per_seed.items():
        for record in own:
            check_record(record, metrics)
            # An empty cell means no second one, so an unknown speaker comes first.
            clusters = (
                sorted(record.clusters, key=bool) if "" in record.clusters else record.clusters
            )
            labels = [record.id, clusters[0], *[*clusters[1:], ""][:two], *[record.fold] * folds]
            values = [value for metric in metrics for value in _values(record, metric)]
            writer.writerow([int(seed), *labels, record.reference, record.hypothesis, *values])
    return text.getvalue().encode(errors="surrogatepass")


def _values(record: Record, metric: Metric) -> list[float]:
    """Python's own numbers; those of a ratio are counts."""
    return [
        int(number) if metric.statistic == "ratio" or _is_int(number) else float(number)
        for number in record.values[metric.name]
    ]


def _is_int(number: object) -> bool:
    try:
        operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _refuse_not_finite(value: object, where: str) -> None:
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:
        raise ValueError(f"{where} is {value!s:.40}: a result holds finite numbers or null")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _refuse_not_finite(entry, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            _refuse_not_finite(entry, f"{where}[{position}]")
