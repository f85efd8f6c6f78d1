"""Errors a user can act on: what was given, what is allowed, what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SuperbError(Exception):
    """A mistake in the input, not in the program; the command line prints it and exits with 2."""


class LacksError(SuperbError):
    """A corpus lacks what one task needs, and may serve others all the same."""


class AudioError(SuperbError):
    """Audio that cannot be used.

    Attributes:
        reason: what is wrong with it, in words meant for counting and grouping: ``missing file``,
            ``unreadable``, ``truncated``, ``empty``, ``not finite``, ``out of range``,
            ``no such channel`` or ``too short``; "" when not given.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class UpstreamError(SuperbError):
    """An encoder that cannot be found or loaded, or that breaks its contract."""


def unknown(kind: str, given: str, allowed: Iterable[str], hint: str = "") -> SuperbError:
    """Build the error for a name that is not in a list: near matches first, then the list.

    Args:
        kind: what the name stands for, e.g. ``"upstream"``.
        given: the name as typed.
        allowed: every name that would have worked.
        hint: one more sentence on what to type.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.6)
    lines = [f"unknown {kind} {given!r}."]
    if near:
        lines.append(f"Did you mean {' or '.join(near)}?")
    lines.append(f"Known: {', '.join(names)}.")
    if hint:
        lines.append(hint)
    return SuperbError(" ".join(lines))
