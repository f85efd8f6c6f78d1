"""What a run of pretraining is asked to do, and whether it can."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

from benchmark.encoding.arithmetic import AUTO, require_precision
from benchmark.errors import SuperbError, unknown
from benchmark.progress import Progress
from benchmark.registry import load_attribute
from upstreams.models.batch import SAMPLE_RATE
from upstreams.pretraining import OBJECTIVES
from upstreams.pretraining.audio import Clip
from upstreams.pretraining.objective import Objective, Recipe, require

# Beside the encoder: everything that only its training needs.
TRAINING = "training"
# How often the held-out loss is measured, where the time allows it.
EVALUATIONS = 20
# An instance of an objective's dataclass `Settings`: each has its own.
Settings: TypeAlias = Any


@dataclass(frozen=True)
class Run:
    """What was asked for: two runs with equal values reach equal weights on one machine.

    Attributes:
        objective: a name in `OBJECTIVES`.
        size: of the encoder.
        settings: the objective's, all of them.
        recipe: learning rate, batch and so on.
        seed: of weights, order, crops, masks.
        steps: of the optimiser; None until it is known how many fit into `minutes`.
        minutes: of all of it, where no number of steps was given.
        precision: of the arithmetic; ``auto`` until it is known which is faster.
        accumulate: batches per step.
        initial: folder of an encoder to start from, or "".
        audio: what `clips_identity` says.
        processes: that share the batches of a step out.
        looks: at held-out audio in the whole run.
    """

    objective: str
    size: str
    settings: Mapping[str, Any]
    recipe: Recipe
    seed: int
    steps: int | None
    minutes: float | None
    precision: str
    accumulate: int
    initial: str
    audio: str
    processes: int = 1
    looks: int = EVALUATIONS


@dataclass(frozen=True)
class Source:
    """What is trained on, for the card.

    Attributes:
        clips: the recordings.
        names: as typed.
        corpora: names of known corpora in it; None where that is not known.
        licence: of the weights, as far as the audio allows.
        attribution: to the owners of the audio.
    """

    clips: Sequence[Clip]
    names: Sequence[str]
    corpora: Sequence[str] | None = None
    licence: str = ""
    attribution: str = ""


def objective_class(name: str) -> type[Objective]:
    """The class of an objective.

    Raises:
        SuperbError: there is none of that name.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return cast("type[Objective]", load_attribute(OBJECTIVES[name].target))


def parse_settings(kind: type[Settings], given: Mapping[str, str]) -> Settings:
    """A settings dataclass from text, as typed on the command line.

    Args:
        kind: the dataclass; its fields are of type int, float, str or bool.
        given: name → text.

    Raises:
        SuperbError: a name is unknown, a text is not of the field's type, a value not allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in fields:
            raise unknown("setting", name, fields)
        default = fields[name].default
        field_type: type[Any] = type(default)
        try:
            if isinstance(default, bool):
                values[name] = {"true": True, "false": False}[text.lower()]
            else:
                values[name] = field_type(text)
        except (ValueError, KeyError) as error:
            raise SuperbError(
                f"setting {name} takes {field_type.__name__}, such as {default!r}; got {text!r}"
            ) from error
    return kind(**values)


def clips_identity(clips: Sequence[Clip]) -> str:
    """A hash of names and lengths of the audio; its content is not read."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(f"{Path(clip.name).name}\t{clip.samples}\n".encode())
    return digest.hexdigest()


def refuse(
    size: str,
    kind: type[Objective],
    steps: int | None,
    minutes: float | None,
    precision: str,
    accumulate: int,
    device: str,
    seed: int,
    recipe: Recipe,
) -> None:
    """Refuse options that no run can have.

    Raises:
        SuperbError: a value is unknown or out of its range.
    """
    if size not in kind.sizes:
        raise unknown("size", size, kind.sizes)
    require_precision(precision)
    if device not in ("auto", "cpu"):
        raise unknown("device", device, ("auto", "cpu"))
    if (steps is None) == (minutes is None):
        raise SuperbError("give either --steps or --minutes")
    for name, value in (("--steps", steps), ("--minutes", minutes), ("--accumulate", accumulate)):
        if value is not None and not (0 < value < math.inf):
            raise SuperbError(f"{name} must be above 0; got {value}")
    require(0 <= seed < 2**32, "--seed", seed, "from 0 to 4294967295")
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if not (math.isfinite(value) and (value > 0 or field.name in ("weight_decay", "warm_up"))):
            raise SuperbError(f"{field.name} must be a positive number; got {value}")
    if recipe.warm_up > 1 or recipe.weight_decay < 0 or recipe.warm_up < 0:
        raise SuperbError(
            "warm_up is a share from 0 to 1, and weight_decay is not negative; got "
            f"{recipe.warm_up} and {recipe.weight_decay}"
        )


def usable(clips: Sequence[Clip], recipe: Recipe, report: Progress) -> list[Clip]:
    """Clips that are long enough; the others are counted aloud."""
    usable = [clip for clip in clips if clip.samples >= recipe.min_seconds * SAMPLE_RATE]
    if short := len(clips) - len(usable):
        report.warn(
            f"{short} of {len(clips)} files are shorter than {recipe.min_seconds:g} s "
            "(--min-seconds) and left out"
        )
    return usable


def take_over(asked: Run, output: Path) -> Run:
    """The run of the output folder, if it is the one asked for; else a new one.

    Args:
        asked: what the user wants.
        output: folder of the encoder.

    Raises:
        SuperbError: the folder holds something else, or another run.
    """
    path = output / TRAINING / "run.json"
    if not path.exists():
        # What a full disk left of a run that never started is no run.
        if output.exists() and (
            not output.is_dir()
            or any(path.is_file() and path.suffix != ".new" for path in output.rglob("*"))
        ):
            raise SuperbError(
                f"--output {output} is there and holds no run of superb pretrain; choose "
                "another folder"
            )
        return asked
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SuperbError(f"cannot read {path}: {error}; choose another --output") from error
    wanted = json.loads(json.dumps(dataclasses.asdict(asked)))
    if isinstance(known, dict):
        known.setdefault("looks", EVALUATIONS)
        wanted["looks"] = known["looks"]
        for name, unknown_yet in (("steps", None), ("precision", AUTO)):
            if wanted[name] == unknown_yet:
                wanted[name] = known.get(name)
        # A run begun before there was a setting has its default, which changes nothing.
        defaults = dataclasses.asdict(objective_class(asked.objective).Settings())
        if isinstance(known.get("settings"), dict) and known.get("objective") == asked.objective:
            known["settings"] = defaults | known["settings"]
    if known != wanted:
        values = known if isinstance(known, dict) else {}
        differing = _differing(values, wanted)
        raise SuperbError(
            f"{output} holds another run: it differs in {', '.join(differing)}. Type its own "
            "command to go on with it, or choose another --output"
        )
    settled = {name: wanted[name] for name in ("steps", "precision", "looks")}
    return dataclasses.replace(asked, **settled)


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of what differs, with those inside of it in brackets."""
    names = []
    for name in sorted(now.keys() | before.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            name += f" ({', '.join(_differing(old, new))})"
        names.append(name)
    return names
