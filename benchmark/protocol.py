"""A protocol: every value that training and selection use, as data.

Protocols are TOML files. The tables ``frames`` and ``mean`` hold the values of all tasks whose
heads need frames or time means; a task's own values (`Downstream.training`) are laid over them, and
over these the table with the task's name. Nothing in the engine has a default for any of these
values, so that what a result records is all there is. A file may name a ``base``, another protocol,
and then holds only what it changes.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_type_hints

from benchmark.errors import SuperbError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class SpecAugment:
    """Masks on features in training (Park et al. 2019), shared by all probes of a batch.

    Attributes:
        time_warp: largest shift of the warped frame; 0 for none.
        time_masks: number of masked spans of frames.
        time_width: exclusive upper bound of their width, in frames.
        time_share: no span is wider than this share of the utterance.
        feature_masks: number of masked spans of feature dimensions.
        feature_width: exclusive upper bound of their width, in dimensions.
        feature_share: no span is wider than this share of the dimensions.
    """

    time_warp: int
    time_masks: int
    time_width: int
    time_share: float
    feature_masks: int
    feature_width: int
    feature_share: float

    def __post_init__(self) -> None:
        for name in ("time_warp", "time_masks", "time_width", "feature_masks", "feature_width"):
            if getattr(self, name) < 0:
                raise SuperbError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("time_share", "feature_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SuperbError(f"{name} must be from 0 to 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class LanguageModel:
    """How a word n-gram model and a lexicon join in decoding, when the user has them.

    Nothing is tuned: the values belong to the protocol, whatever the encoder.

    Attributes:
        beam: hypotheses kept at every frame.
        beam_threshold: hypotheses behind the best by more than this log score are dropped.
        lm_weight: what the model's log probability is multiplied by.
        word_score: added for every word.
    """

    beam: int
    beam_threshold: float
    lm_weight: float
    word_score: float

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise SuperbError(f"beam must be at least 1, got {self.beam}")
        if not _is_finite(self.beam_threshold) or self.beam_threshold <= 0:
            raise SuperbError(f"beam_threshold must be positive, got {self.beam_threshold}")
        for name in ("lm_weight", "word_score"):
            if not _is_finite(getattr(self, name)):
                raise SuperbError(f"{name} must be finite, got {getattr(self, name)}")


@dataclass(frozen=True)
class Halving:
    """One rung of successive halving: at `update`, each layer choice keeps its `keep` best rates.

    Rates are ranked on valid, averaged over seeds (Jamieson and Talwalkar 2016, "Non-stochastic
    best arm identification"): ``score`` by the best score so far, ``loss`` by the loss at this
    update, which tells more where every transcript is still wrong.
    """

    update: int
    keep: int
    by: Literal["score", "loss"]


@dataclass(frozen=True)
class Training:
    """How the probes of one task are trained and chosen.

    Attributes:
        updates: optimiser updates (Adam, torch's default betas, no weight decay).
        batch_utterances: utterances in a batch.
        accumulate: batches in an update. Each utterance of an update counts the same, so that
            8 x 4 has the gradient of 32; what differs is which utterances are of like length.
        sampling: ``shuffle`` visits every utterance once an epoch; ``balanced`` draws with
            replacement, every class equally often.
        crop_s: seconds of a training utterance that are heard at most; 0 for all. Valid and test
            are always heard whole.
        crops: places where an utterance longer than that is cropped, one after another in the
            epochs. They are fixed, so that features can be stored.
        gain_db: what all audio is amplified by before the encoder, in decibels.
        first_seed: the seed of the first run; others count up from it.
        learning_rates: the grid, chosen from on valid.
        schedule: ``constant``, or ``linear`` decay to zero after the warm-up.
        warmup: updates of linear increase at the start.
        clip_norm: largest gradient norm of one probe.
        head_precision: arithmetic of the head's forward pass; losses are always float32.
        evaluate_every: updates between two looks at valid; the best state is kept.
        valid_sampling: ``all`` looks at every utterance of valid once; ``balanced`` draws as many
            with replacement, every class equally often, the same ones at every look.
        select_by: ``score-loss`` keeps the best score, and of equal ones that of least loss;
            ``score`` keeps the first best score, and none unless it is better than the worst, 0 %
            (or 100 % where lower is better).
        choose_on: ``valid``, or ``test`` to compare with published runs that do so; the result
            says that its score is too good.
        patience: looks in a row without a new best after which a probe stops; 0 for never.
        halving: when to drop learning rates that are behind; empty for never.
        standardise: whether each head sees mixed features shifted and scaled to mean 0 and
            variance 1 over train, so that one grid of learning rates suits every encoder.
        head: the head's own values: numbers that are finite and not negative.
        spec_augment: masks on features, or None; not together with `standardise`.
        lm: values for decoding with a language model, or None; read only by those who give one.
    """

    updates: int
    batch_utterances: int
    accumulate: int
    sampling: Literal["shuffle", "balanced"]
    crop_s: float
    crops: int
    gain_db: float
    first_seed: int
    learning_rates: tuple[float, ...]
    schedule: Literal["constant", "linear"]
    warmup: int
    clip_norm: float
    head_precision: Literal["float32", "bfloat16"]
    evaluate_every: int
    valid_sampling: Literal["all", "balanced"]
    select_by: Literal["score-loss", "score"]
    choose_on: Literal["valid", "test"]
    patience: int
    halving: tuple[Halving, ...]
    standardise: bool
    head: Mapping[str, Any]
    spec_augment: SpecAugment | None
    lm: LanguageModel | None

    def __post_init__(self) -> None:
        if not all(map(_is_finite, self.learning_rates)):
            raise SuperbError(f"learning_rates must be finite, got {list(self.learning_rates)}")
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise SuperbError("learning_rates must hold at least one positive rate")
        if tuple(sorted(set(self.learning_rates))) != self.learning_rates:
            raise SuperbError("learning_rates must increase")
        for name in ("updates", "batch_utterances", "accumulate", "crops", "evaluate_every"):
            if getattr(self, name) < 1:
                raise SuperbError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("patience", "first_seed"):
            if getattr(self, name) < 0:
                raise SuperbError(f"{name} must not be negative, got {getattr(self, name)}")
        if not _is_finite(self.crop_s) or self.crop_s < 0:
            raise SuperbError(f"crop_s must be finite and not negative, got {self.crop_s}")
        if not self.crop_s and self.crops > 1:
            raise SuperbError(f"crops = {self.crops} needs crop_s above 0, the seconds of a crop")
        if not _is_finite(self.gain_db):
            raise SuperbError(f"gain_db must be finite, got {self.gain_db}")
        if not 0 <= self.warmup <= self.updates:
            raise SuperbError(
                f"warmup must be from 0 to updates ({self.updates}), got {self.warmup}"
            )
        if not _is_finite(self.clip_norm) or self.clip_norm <= 0:
            raise SuperbError(f"clip_norm must be positive and finite, got {self.clip_norm}")
        self._check_halving()
        for name, value in self.head.items():
            _check_head_value(name, value)
        if self.standardise and self.spec_augment is not None:
            raise SuperbError(
                "spec_augment needs standardise = false: masks set features to 0, which is no "
                "longer their mean once they are shifted and scaled."
            )

    def _check_halving(self) -> None:
        before = 0
        for rung in self.halving:
            if rung.keep < 1:
                raise SuperbError(f"halving must keep at least 1 learning rate, got {rung.keep}")
            if not 1 <= rung.update <= self.updates:
                raise SuperbError(
                    f"halving at update {rung.update}: must be from 1 to updates ({self.updates})"
                )
            if rung.update <= before:
                raise SuperbError(
                    f"halving at update {rung.update}: must come after the one before, at {before}"
                )
            before = rung.update
            if rung.by == "score" and self.select_by == "score":
                raise SuperbError(
                    'halving by score needs select_by = "score-loss": with "score", a rate may '
                    'have no score worth keeping yet. Halve by = "loss"'
                )
            if rung.update % self.evaluate_every:
                raise SuperbError(
                    f"halving at update {rung.update}: not a multiple of evaluate_every "
                    f"({self.evaluate_every})"
                )

    def factor(self, update: int) -> float:
        """What the learning rate is multiplied by at `update`, counted from 0."""
        if update < self.warmup:
            return (update + 1) / self.warmup
        if self.schedule == "linear":
            return (self.updates - update) / max(self.updates - self.warmup, 1)
        return 1.0


# Values of heads that torch wants whole; found out now and not after the features were made.
_SIZES = ("projection", "hidden", "layers")

# Without these a table is no whole training.
_REQUIRED = {field.name for field in fields(Training)} - {
    "spec_augment",
    "lm",
    "halving",
    "learning_rates",
    "choose_on",
}
# Values of `Training` that change nothing. A hash leaves them out, so that a value that came later
# does not give another identity to runs that never used it.
_NEUTRAL: Mapping[str, Any] = {
    "accumulate": 1,
    "crop_s": 0.0,
    "crops": 1,
    "gain_db": 0.0,
    "first_seed": 0,
    "head_precision": "float32",
    "valid_sampling": "all",
    "select_by": "score-loss",
    "choose_on": "valid",
    "patience": 0,
    "lm": None,
}

_NAMES = ("name", "version", "sha256")

KINDS: Final = ("frames", "mean")
"""Tables of a protocol that hold for all tasks of a kind."""


@dataclass(frozen=True)
class Protocol:
    """A named, versioned set of values, by task and by kind of task."""

    name: str
    version: int
    summary: str
    path: Path
    tables: Mapping[str, Mapping[str, Any]]

    def training(
        self,
        task: str,
        features: str = "",
        own: Mapping[str, Any] | None = None,
        base: str = "",
    ) -> Training:
        """The values for one task.

        Args:
            task: its name.
            features: ``frames`` or ``mean``, what its head needs; "" takes no values of a kind.
            own: its own values, as `Downstream.training` has them. The head's settings are those
                that ``head`` names there.
            base: the task that it is a variant of, whose values it has, but for those of the head.

        Raises:
            SuperbError: when nothing is said of it, or a value is unknown, missing or ill-typed.
        """
        if not {task, base, features} & self.tables.keys():
            raise unknown(
                f"task of protocol {self.name}",
                task,
                [name for name in self.tables if name not in KINDS],
                f"Or give it a table [{task}].",
            )
        own = {} if own is None else {"head": {}, **_table(own, f"training of task {task}")}
        _refuse_extra(Training, own, f"training of task {task}")
        of_base = {
            name: value for name, value in self.tables.get(base, {}).items() if name != "head"
        }
        values = dict(self.tables.get(features, {}))
        for table in (of_base, own, self.tables.get(task, {})):
            values = _laid_over(values, table)
        training = _training(values, where=f"protocol {self.path}, [{task}]")
        settings = own.get("head", training.head)
        if extra := training.head.keys() - settings.keys():
            raise SuperbError(
                f"protocol {self.path}, [{task}.head]: "
                + str(unknown("setting of the head", sorted(extra)[0], settings))
            )
        return training

    def record(self, training: Training) -> dict[str, Any]:
        """Name, version, hash and every value used, for results."""
        values = asdict(training)
        named = {"name": self.name, "version": self.version, "sha256": content_sha256(values)}
        return {**named, **values}


def content(values: Mapping[str, Any]) -> dict[str, Any]:
    """What counts of a protocol's values for one task, from a file of results too.

    That is neither its name nor what changes nothing.
    """
    return {
        name: value
        for name, value in values.items()
        if name not in _NAMES and (name not in _NEUTRAL or value != _NEUTRAL[name])
    }


def content_sha256(values: Mapping[str, Any]) -> str:
    """Hash of `content`."""
    return hashlib.sha256(json.dumps(content(values), sort_keys=True).encode()).hexdigest()


def load_protocol(name: str, folder: Path) -> Protocol:
    """Read a protocol by name from `folder`, or any TOML file by path.

    A file with a ``base`` (a name in `folder`, or a path beside the file) holds what it changes.

    Raises:
        SuperbError: for an unknown name, and for unknown, missing or ill-typed values.
    """
    path = _find(name, folder)
    return _protocol(_read(path, folder, ()), path)


def inline_protocol(table: Mapping[str, Any], file: Path, folder: Path) -> Protocol:
    """A protocol that is a table of another file, written as `load_protocol` reads files.

    Args:
        table: its values, perhaps with a ``base``: a name in `folder`, or a path beside `file`.
        file: where the table stands.
        folder: of protocols that have a name.

    Raises:
        SuperbError: as for `load_protocol`.
    """
    return _protocol(_with_base(dict(table), file, folder, ()), file)


def _protocol(data: dict[str, Any], path: Path) -> Protocol:
    head = {key: data.pop(key, None) for key in ("name", "version", "summary")}
    if not (isinstance(head["name"], str) and isinstance(head["version"], int)):
        raise SuperbError(f"protocol {path} needs a name (text) and a version (whole number)")
    for name, values in data.items():
        where = f"protocol {path}, [{name}]"
        table = _table(values, where)
        _refuse_extra(Training, table, where)
        if table.keys() >= _REQUIRED:  # else it is checked with what it is laid over
            _training(table, where)
    return Protocol(head["name"], head["version"], str(head["summary"] or ""), path, data)


def _find(name: str, folder: Path, beside: Path = Path()) -> Path:
    path = beside / name if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        known = [file.stem for file in folder.glob("*.toml")]
        raise unknown("protocol", name, known, "A path to a .toml file works too.")
    return path


def _read(path: Path, folder: Path, derived: tuple[Path, ...]) -> dict[str, Any]:
    """The tables of a file, laid over those of its base."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also of numbers of 5,000 digits
        raise SuperbError(f"protocol {path} is not valid TOML: {error}") from error
    return _with_base(data, path, folder, derived)


def _with_base(
    data: dict[str, Any], path: Path, folder: Path, derived: tuple[Path, ...]
) -> dict[str, Any]:
    """Values laid over those of the base that they name."""
    base = data.pop("base", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise SuperbError(f"protocol {path}: base must be the name of a protocol, got {base!r}")
    try:
        below = _find(base, folder, path.parent)
    except SuperbError as error:
        raise SuperbError(f"protocol {path}, base: {error}") from error
    family = (*derived, path.resolve())
    if below.resolve() in family:
        raise SuperbError(f"protocol {path}: its base {base!r} is based on itself")
    values = _read(below, folder, family)
    # a derived protocol is another one: it brings its own name, version and summary
    values = {key: value for key, value in values.items() if isinstance(value, dict)}
    return _laid_over(values, data)


def _laid_over(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes`; tables are merged key by key, anything else is replaced."""
    merged = dict(values)
    for key, change in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(change, dict):
            change = _laid_over(old, change)
        merged[key] = change
    return merged


def _training(values: object, where: str) -> Training:
    table = _table(values, where)
    _refuse_extra(Training, table, where)
    table.setdefault("choose_on", "valid")
    augment = table.pop("spec_augment", None)
    lm = table.pop("lm", None)
    rungs = table.pop("halving", [])
    if not isinstance(rungs, list):
        raise SuperbError(f"{where}.halving must be a list of tables, got {rungs!r}")
    built = {
        "learning_rates": _rates(table.pop("learning_rates", []), f"{where}.learning_rates"),
        "halving": tuple(_build(Halving, rung, f"{where}.halving") for rung in rungs),
        "head": _table(table.pop("head", None), f"{where}.head"),
        "spec_augment": None
        if augment is None
        else _build(SpecAugment, augment, f"{where}.spec_augment"),
        "lm": None if lm is None else _build(LanguageModel, lm, f"{where}.lm"),
    }
    return _build(Training, {**table, **built}, where)


def _rates(values: object, where: str) -> tuple[float, ...]:
    if not isinstance(values, list) or any(type(rate) not in (int, float) for rate in values):
        raise SuperbError(f"{where} must be a list of numbers, got {values!r}")
    return tuple(_float(rate) for rate in values)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number too large for a float
        return math.inf if value > 0 else -math.inf


def _is_finite(value: float) -> bool:
    return math.isfinite(_float(value))


def _check_head_value(name: str, value: object) -> None:
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not _is_finite(value)
        or value < 0
    ):
        raise SuperbError(
            f"head.{name} must be a number that is finite and not negative, got {value!r:.40}"
        )
    if name in _SIZES and (not isinstance(value, int) or value < 1):
        raise SuperbError(f"head.{name} must be a whole number of at least 1, got {value!r:.40}")
    if name == "dropout" and value >= 1:
        raise SuperbError(f"head.dropout must be below 1, got {value!r:.40}")


def _table(values: object, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise SuperbError(f"{where} must be a table of values")
    return dict(values)


def _refuse_extra(kind: type[Any], table: Mapping[str, object], where: str) -> set[str]:
    """Refuse keys that are no fields of a dataclass, and return its fields."""
    wanted = {field.name for field in fields(kind)}
    if extra := set(table) - wanted:
        raise SuperbError(f"{where}: " + str(unknown("value", sorted(extra)[0], wanted)))
    return wanted


def _build(kind: type[T], values: object, where: str) -> T:
    """Make a dataclass of a table whose keys must be exactly its fields."""
    table = _table(values, where)
    # A misspelled key is both extra and missing; the first says more.
    wanted = _refuse_extra(kind, table, where)
    if missing := wanted - set(table):
        raise SuperbError(
            f"{where} lacks {', '.join(sorted(missing))}: add the missing values, or start from "
            'base = "superb" (or another protocol), whose values then stand in'
        )
    for name, hint in get_type_hints(kind).items():
        value = table[name]
        if hint is int and (not isinstance(value, int) or isinstance(value, bool)):
            raise SuperbError(f"{where}.{name} must be a whole number, got {value!r}")
        if hint is bool and not isinstance(value, bool):
            raise SuperbError(f"{where}.{name} must be true or false, got {value!r}")
        if hint is float:
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise SuperbError(f"{where}.{name} must be a number, got {value!r}")
            table[name] = _float(value)
        choices = getattr(hint, "__args__", ()) if "Literal" in str(hint) else ()
        if choices and value not in choices:
            raise SuperbError(f"{where}: " + str(unknown(name, str(value), map(str, choices))))
    try:
        return kind(**table)
    except SuperbError as error:
        raise SuperbError(f"{where}: {error}") from error
