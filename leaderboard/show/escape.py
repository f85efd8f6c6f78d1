"""Text as each format shows it unchanged: names come from strangers."""

from __future__ import annotations

import html
import re
from typing import Final

from leaderboard.read.names import printable


def no_formula(text: str) -> str:
    """Text that a spreadsheet does not run: an apostrophe before what it would read as a formula.

    A number stays as it is, a layer such as -1 too.

    >>> no_formula("=1+1"), no_formula("-1"), no_formula("hubert")
    ("'=1+1", '-1', 'hubert')
    """
    dangerous = text.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{text}" if dangerous and not re.fullmatch(r"[-+]?\d+(\.\d+)?", text) else text


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table and at the start of a line."""
    text = html.escape(printable(text), quote=False)
    text = re.sub(r"([\\`*\[\]~|$])", r"\\\1", text)
    # A heading, a list or a rule.
    text = re.sub(r"^(#|[-+=](?![\d.]))", r"\\\1", text)
    # Inside a word an underscore means nothing, and model names are full of them.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)


_LATEX: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    # After \\ these would be read as its argument.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "–": r"\textendash{}",
    "−": "$-$",
    "±": r"$\pm$",
    "¹": r"\textsuperscript{1}",
    "²": r"\textsuperscript{2}",
    "³": r"\textsuperscript{3}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\textsection{}",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is, also at the start of a table's row.

    Letters of Latin-1 are left to LaTeX's own UTF-8; what its default fonts do not have is spelled
    out as its code point.
    """
    escaped = "".join(_latex_char(char) for char in printable(text))
    # Two hyphens side by side would become a dash.
    return re.sub(r"-(?=-)", "-{}", escaped)


def _latex_char(char: str) -> str:
    if char in _LATEX:
        return _LATEX[char]
    if char.isascii() or (char.isalpha() and "À" <= char <= "ÿ" and char not in "ÐÞðþ"):
        return char
    return escape_latex(char.encode("unicode_escape").decode())


def escape_html(text: str) -> str:
    """Text that HTML shows as it is, in an element or a quoted attribute."""
    return html.escape(printable(text))
