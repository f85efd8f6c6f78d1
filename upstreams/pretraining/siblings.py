"""Runs that lie beside one another: whether what sets them apart is the objective alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmark.errors import SuperbError
from upstreams.loading.pretrained import read_architecture
from upstreams.models.architecture import Architecture, parameter_count
from upstreams.pretraining.run import TRAINING, Run, objective_class
from upstreams.pretraining.targets import teacher_names

# Seconds heard that differ by less are taken for equal.
SHARE = 0.05


def differing(run: Run, output: Path) -> list[str]:
    """What other runs in the same folder do not share with this one, a line each.

    Schools are told apart by encoders of one body that heard the same seconds of the same audio,
    from no other's weights or features; a line says of which runs beside this one that is not so.

    Args:
        run: whose steps are known.
        output: its folder; runs are looked for beside it.
    """
    body = _body(run.objective, run.size)
    heard_s = _heard_s(run.steps, run.recipe.batch_seconds)
    lines = []
    for folder, other in _beside(output):
        their_body = _built(folder) or _body(other["objective"], other["size"])
        their_s = _heard_s(other["steps"], other["recipe"]["batch_seconds"])
        what = []
        if their_body != body:
            what.append(f"another body, {told_apart(their_body, body)}")
        if abs(their_s - heard_s) > SHARE * max(their_s, heard_s):
            what.append(f"{their_s:,.0f} s of audio heard in place of {heard_s:,.0f}")
        if other.get("audio", run.audio) != run.audio:
            what.append("other recordings")
        for name, theirs, own in (
            ("started", other.get("initial", ""), run.initial),
            ("taught", _teacher(other.get("settings")), _teacher(run.settings)),
        ):
            if theirs != own:
                what.append(f"{name} by {theirs or 'none'} in place of {own or 'none'}")
        if what:
            lines.append(f"{folder.name} ({other['objective']}) beside it: {'; '.join(what)}")
    return lines


def _beside(output: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Runs in the same folder whose objective, size and steps are known here."""
    for path in sorted(output.resolve().parent.glob(f"*/{TRAINING}/run.json")):
        folder = path.parent.parent
        if folder == output.resolve():
            continue
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            _body(run["objective"], run["size"])
            _heard_s(run["steps"], run["recipe"]["batch_seconds"])
        except (OSError, ValueError, KeyError, TypeError, SuperbError):
            continue  # of another version, or of a plug-in: nothing can be said of it
        yield folder, run


def _built(folder: Path) -> Architecture | None:
    """The body of a run that has ended, whatever its size is called by now; None of others."""
    try:
        body: Architecture = read_architecture(folder)
    except SuperbError:
        return None
    return body


def _body(objective: str, size: str) -> Architecture:
    body: Architecture = objective_class(objective).sizes[size]
    return body


def _teacher(settings: Any) -> str:  # noqa: ANN401 - of any file
    """The encoders that gave the targets; "" for none that was trained."""
    given = str(settings.get("teacher", "")) if isinstance(settings, Mapping) else ""
    return ", ".join(teacher_names(given))


def _heard_s(steps: int | None, batch_seconds: float) -> float:
    return float(steps or 0) * float(batch_seconds)


def told_apart(theirs: Any, own: Any) -> str:  # noqa: ANN401 - dataclasses of any class
    """What sets one body apart from another, in words."""
    if type(theirs) is not type(own):
        return f"{_described(theirs)} in place of {_described(own)}"
    return ", ".join(
        f"{name} {getattr(theirs, name)} in place of {getattr(own, name)}"
        for name in (field.name for field in fields(own))
        if getattr(theirs, name) != getattr(own, name)
    )


def _described(body: Architecture) -> str:
    kind = type(body).__name__.removesuffix("Config")
    return f"{kind} of {parameter_count(body) / 1e6:.1f} M"
