"""HTML and SVG elements as values: text becomes markup only here, and always escaped."""

from __future__ import annotations

import html
import json

from leaderboard.read.names import printable


class Html(str):
    """Markup that is safe to insert as it is; every other string is text and gets escaped."""

    __slots__ = ()


Child = str | None


def element(name: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """One element.

    Args:
        name: of the element.
        children: `Html` is inserted as it is, other strings are escaped, None is left out.
        attributes: an underscore stands for a hyphen, one at the end is dropped (``class_``);
            True is an attribute without value, False and None leave it out. Numbers are written
            with two decimals at most, which is a hundredth of a pixel in a drawing.
    """
    opening = name
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        opening += f" {key.rstrip('_').replace('_', '-')}"
        if value is not True:
            text = printable(value) if isinstance(value, str) else number(value)
            opening += f'="{html.escape(text)}"'
    if name in _VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(*children)}</{name}>")


_VOID = ("input", "meta", "br", "hr")


def join(*children: Child) -> Html:
    """Several pieces one after the other; what is not `Html` is escaped."""
    return Html(
        "".join(
            [
                child if isinstance(child, Html) else html.escape(printable(child))
                for child in children
                if child is not None
            ]
        )
    )


def number(value: float) -> str:
    """A coordinate: two decimals at most, none that are zero.

    >>> number(3.0), number(-0.001), number(2.345)
    ('3', '0', '2.35')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def embedded_json(value: object) -> Html:
    """JSON for a script element: no text in it can end the element or open a comment."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Html(text)
