"""A training file, and the encoder that a layout finds in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from benchmark.core import Family, UpstreamCard
from benchmark.errors import UpstreamError
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.files import Origin, bare_names, joined, some
from upstreams.loading.layouts.settings import Settings
from upstreams.loading.pretrained import Frozen
from upstreams.loading.saved import refuse_damage
from upstreams.models.architecture import Architecture

# What is in a training file, as plain data: nobody knows its shape before it is looked at.
Content: TypeAlias = Any

# Under which of its keys a training file has its weights.
STATES = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "Distiller",
    "Transformer",
    "objective",
    "model_weight",
    "weights",
)


@dataclass(frozen=True)
class TrainingFile:
    """A training file, opened.

    Attributes:
        path: of the file.
        origin: for the encoder's card.
        content: all of it, as plain data.
        key: under which it has its weights; "" if it holds nothing else.
        weights: by name, without what compiling and data-parallel training put before names.
        left_out: entries among the weights that are no tensors, such as running averages.
        typed: settings that the user gave.
    """

    path: Path
    origin: Origin
    content: Mapping[str, Content]
    key: str
    weights: Mapping[str, Tensor]
    left_out: tuple[str, ...]
    typed: Mapping[str, str]

    def settings(self, given: Mapping[str, object]) -> Settings:
        """Settings of the file, with the user's where it is silent."""
        return Settings(str(self.path), given, self.typed)

    def card(
        self,
        architecture: Architecture,
        family: Family,
        paper: str,
        trained_on: frozenset[str] | None = None,
        note: str = "",
    ) -> UpstreamCard:
        """The card of an encoder of one utterance at a time that the file holds."""
        return UpstreamCard(
            name=self.origin.name,
            layers=architecture.states,
            dim=architecture.dim,
            hop_samples=architecture.hop_samples,
            family=family,
            min_samples=architecture.min_samples,
            pad_invariant=True,
            trained_on=trained_on,
            paper=paper,
            source=self.origin.source,
            note=joined(note, self.origin.note),
        )


@dataclass(frozen=True)
class Found:
    """An encoder as a training file has it.

    Attributes:
        upstream: the encoder, frozen, with its card.
        layout: what kind of file it was.
        said: what the file says of the training, in words for the card.
        left_out: parts of the file that an encoder does not need.
    """

    upstream: Frozen
    layout: str
    said: Mapping[str, str]
    left_out: tuple[str, ...]


class Layout(Protocol):
    """A module that knows one kind of training file."""

    def recognises(self, file: TrainingFile) -> bool:
        """Whether a file is of that kind, by its content."""
        ...

    def read(self, file: TrainingFile) -> Found:
        """The encoder in it.

        Raises:
            UpstreamError: it is not all there, or is one that is not implemented.
        """
        ...


def opened(path: Path, origin: Origin, content: object, typed: Mapping[str, str]) -> TrainingFile:
    """A training file, its weights found.

    Args:
        path: of the file.
        origin: for the encoder's card.
        content: of the file, as plain data.
        typed: settings that the user gave.

    Raises:
        UpstreamError: there are no weights by name in it, or several sets of them.
    """
    if not isinstance(content, dict):
        raise UpstreamError(
            f"{path} holds {type(content).__name__}, not the named weights of a training file"
        )
    found = [key for key in STATES if _is_state(content.get(key))]
    if len(found) > 1:
        raise UpstreamError(
            f"{path} holds weights under {' and '.join(map(repr, found))}, and nothing says "
            "which are the encoder's; save one of them"
        )
    if not found and not _is_state(content):
        raise UpstreamError(f"{path} {_instead(content)}")
    state = content[found[0]] if found else content
    weights = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    refuse_damage(path, weights.values())
    names = bare_names(weights)
    if len(set(names.values())) < len(names):
        raise UpstreamError(f"{path} holds a weight twice, with and without a wrapper's prefix")
    return TrainingFile(
        path,
        origin,
        content if found else {},
        found[0] if found else "",
        # The content is mapped from the file, which may change while the encoder is in use.
        {names[name]: value.clone() for name, value in weights.items()},
        tuple(name for name in state if name not in weights) if found else (),
        typed,
    )


def _is_state(value: object) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(name, str) for name in value)
        and any(isinstance(part, Tensor) and "." in name for name, part in value.items())
    )


def _instead(content: Mapping[object, object]) -> str:
    """What a file without weights holds."""
    keys = {str(key) for key in content}
    if keys & {"optimizer", "last_optimizer_state", "param_groups", "optimizer_states"}:
        return "holds the state of an optimiser and no weights; take the file of the model itself"
    if "shard_metadata" in keys:
        return "holds flat pieces of weights that were sharded over cards; consolidate them first"
    return (
        f"holds {some(sorted(keys))} and no weights by name; a training file has them under "
        f"{', '.join(STATES)}, or is nothing else"
    )


def anchored(file: TrainingFile, anchor: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights of the part of a model that has a certain weight, and the names of the others.

    Args:
        file: the training file.
        anchor: the name of a weight that every encoder of a kind has.

    Raises:
        UpstreamError: several parts have it.
    """
    pattern = re.compile(rf"(?P<prefix>(.*\.)?){re.escape(anchor)}")
    prefixes = [match["prefix"] for name in file.weights if (match := pattern.fullmatch(name))]
    if len(prefixes) > 1:
        raise UpstreamError(
            f"{file.path} holds {len(prefixes)} encoders, under {some(sorted(prefixes))}; save one"
        )
    (prefix,) = prefixes
    inside = {
        name.removeprefix(prefix): weight
        for name, weight in file.weights.items()
        if name.startswith(prefix)
    }
    outside = [name for name in file.weights if not name.startswith(prefix)]
    return inside, parts(outside)


def has(file: TrainingFile, anchor: str) -> bool:
    """Whether a weight has that name, whatever the part of a model is called that it is in."""
    return any(name == anchor or name.endswith("." + anchor) for name in file.weights)


def parts(names: Iterable[str]) -> tuple[str, ...]:
    """Names of weights, shortened to the parts of a model that they belong to."""
    return tuple(sorted({".".join(name.split(".")[:-1][:2]) or name for name in names}))


def renamed(
    weights: Mapping[str, Tensor], rules: Iterable[tuple[re.Pattern[str], str]], where: str
) -> dict[str, Tensor]:
    """Weights under other names.

    Args:
        weights: by their names.
        rules: the first whose pattern is at the start of a name replaces it there; a name that
            none fits stays, so that it can be told to be left over.
        where: the file, for messages.

    Raises:
        UpstreamError: two get the same name.
    """
    rules = tuple(rules)
    result: dict[str, Tensor] = {}
    for name, weight in weights.items():
        new = name
        for pattern, replacement in rules:
            if match := pattern.match(name):
                new = match.expand(replacement) + name[match.end() :]
                break
        if new in result:
            raise UpstreamError(f"{where} holds {new!r} twice under two names")
        result[new] = weight
    return result


def known_corpora(text: str) -> frozenset[str] | None:
    """Corpora that a path in a training file names; None if it names none, or something else too.

    A part of what was heard would be worse than nothing: scores on the rest would look clean.

    Args:
        text: the path's last part, such as ``LibriSpeech_960h``.
    """
    rest = _letters(text)
    found = set()
    names = {corpus for entry in UPSTREAMS.values() for corpus in entry.trained_on or ()}
    for name in sorted(names, key=len, reverse=True):
        if _letters(name) in rest:
            found.add(name)
            rest = rest.replace(_letters(name), " ")
    return frozenset(found) if found and _SAYS_NOTHING.fullmatch(rest) else None


_SAYS_NOTHING = re.compile(
    r"(\s|\d|hours?|hrs?|h|data|train|clean|other|all|manifests?|tsv|wavs?)*"
)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
