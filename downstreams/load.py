"""From what a user types after ``--downstream``, or hands over, to a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from benchmark.core import Downstream, DownstreamCard
from benchmark.errors import SuperbError, unknown
from benchmark.metrics import find_statistic
from benchmark.protocol import KINDS
from benchmark.registry import errors_of, is_target, load_object, plugins
from downstreams import DOWNSTREAMS

GROUP: Final = "superb.downstreams"
FORMS: Final = "Other forms: my_task.py:MyTask, package.module:MyTask."
METHODS: Final = ("vocabulary", "head", "loss", "answer", "records")
# Of a task that trains nothing.
SEARCHING: Final = ("vocabulary", "search", "records")
# A table of a protocol that is no task's, and the word for every task.
_RESERVED: Final = (*KINDS, "all")


def load_downstream(task: str | object) -> Downstream:
    """Load a task, and check that it keeps the contract as far as can be seen without running it.

    Args:
        task: a name of the table or of an installed plug-in; ``path.py:Name`` or
            ``package.module:Name``, a class, function or object; or the object itself.

    Raises:
        SuperbError: nothing fits (with near matches), its code fails, or it is no task.
    """
    if not isinstance(task, str):
        return _checked(f"downstream {type(task).__name__}", task)
    name = task.strip()
    target = DOWNSTREAMS.get(name) or _plugins().get(name) or (name if is_target(name) else "")
    if not target and name.endswith(".py"):
        raise SuperbError(f"{name} is a file; name the task in it, such as {name}:MyTask")
    if not target:
        raise unknown("downstream task", name, downstream_names(), FORMS)
    return _checked(name, load_object(target, "task"))


def downstream_names() -> list[str]:
    """Names that need no path: the table, then installed plug-ins. Imports none of them."""
    return [*DOWNSTREAMS, *_plugins()]


def _plugins() -> dict[str, str]:
    """Installed plug-ins: name → target."""
    return plugins(GROUP, DOWNSTREAMS, "task")


def _checked(name: str, task: object) -> Downstream:
    """Refuse what is no task, in the words of the contract."""
    kind = type(task).__name__
    if isinstance(task, type):
        raise SuperbError(f"{task.__name__} is a class; pass an object, {task.__name__}()")
    with errors_of(name):
        card = getattr(task, "card", None)
        training = getattr(task, "training", None)
    if not isinstance(card, DownstreamCard):
        raise SuperbError(
            f"{name} gives {kind} without a card: a task has an attribute card, a "
            f"superb.DownstreamCard, an attribute training, and the methods {', '.join(METHODS)}"
        )
    if not isinstance(training, Mapping):
        raise SuperbError(
            f"{name} gives {kind} without training: a mapping with its own values of training, "
            'such as {"head": {"hidden": 128}}, or {} for none'
        )
    wanted = METHODS if card.trained else SEARCHING
    if missing := [method for method in wanted if not callable(getattr(task, method, None))]:
        raise SuperbError(
            f"{name} gives {kind} without the method{'s' * (len(missing) > 1)} "
            f"{', '.join(missing)}; a task has {', '.join(wanted)}"
        )
    for metric in card.metrics:
        try:
            find_statistic(metric.statistic)
        except SuperbError as error:
            raise SuperbError(f"{name}, metric {metric.name}: {error}") from error
    built_in = type(task).__module__.partition(".")[0] == "downstreams"
    if card.name in _RESERVED or (card.name in DOWNSTREAMS and not built_in):
        raise SuperbError(
            f"{name} has a card of the name {card.name!r}, which is built in; choose another name"
        )
    return cast("Downstream", task)
