"""Settings of a training file, read strictly: what is missing is asked for, never guessed."""

from __future__ import annotations

import ast
import difflib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from benchmark.errors import UpstreamError

REQUIRED: Any = object()
# One convolution: channels, width, stride.
ConvolutionRow: TypeAlias = tuple[int, int, int]
# More than any model has; a list in a string can multiply itself without end.
MOST_CONVOLUTIONS, LONGEST_EXPRESSION = 64, 10_000
# Modules are made one by one, and torch multiplies sizes in 64 bits.
MOST_LAYERS, MOST_SIZE = 1_000, 1 << 20


@dataclass(frozen=True)
class Field:
    """A setting that a layout reads.

    Attributes:
        kind: its type.
        choices: what it may be; () for anything of that type, whole numbers from 1 to `most`.
        default: what the layout's own code takes where the file is silent; `REQUIRED` where that
            would be a guess.
        most: of a whole number.
    """

    kind: type
    choices: tuple[object, ...] = ()
    default: object = REQUIRED
    most: int = MOST_SIZE


@dataclass(frozen=True)
class Settings:
    """What a file says of its model, and what the user typed where it says nothing.

    Attributes:
        where: the file, for messages.
        given: by the file.
        typed: with ``--set``, as text.
    """

    where: str
    given: Mapping[str, object]
    typed: Mapping[str, str]

    def read(self, fields: Mapping[str, Field]) -> dict[str, Any]:
        """The values of all fields.

        Raises:
            UpstreamError: one is missing, of another type or not among its choices; or the user
                typed one that there is not, or that the file says otherwise.
        """
        self._refuse_unknown(fields)
        values: dict[str, Any] = {}
        missing = []
        for name, field in fields.items():
            # A null in the file is the same as silence.
            if self.given.get(name) is not None:
                values[name] = self._checked(name, field, self.given[name])
                if name in self.typed and self._typed(name, field) != values[name]:
                    raise UpstreamError(
                        f"{self.where} says {name}={values[name]}, and --set says "
                        f"{self.typed[name]!r}; leave out that --set"
                    )
            elif name in self.typed:
                values[name] = self._typed(name, field)
            elif field.default is REQUIRED:
                missing.append(name)
            else:
                values[name] = field.default
        if missing:
            raise UpstreamError(
                f"{self.where} does not say {', '.join(missing)}, which the features depend on. "
                "Ask whoever trained it, and type "
                + " ".join(f"--set {name}={_example(fields[name])}" for name in missing)
            )
        return values

    def _refuse_unknown(self, fields: Mapping[str, Field]) -> None:
        for name in self.typed.keys() - fields.keys():
            near = difflib.get_close_matches(name, fields, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise UpstreamError(
                f"--set {name}={self.typed[name]}: {self.where} has no such setting.{meant} "
                f"There are {', '.join(fields)}"
            )

    def _typed(self, name: str, field: Field) -> object:
        text = self.typed[name]
        value: object = text
        if field.kind is not str:
            try:
                value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                raise UpstreamError(
                    f"--set {name}={text}: expected {_example(field)}, for example"
                ) from error
        return self._checked(name, field, value)

    def _checked(self, name: str, field: Field, value: object) -> object:
        if field.kind is float and type(value) is int:
            value = float(value)
        if field.kind is int and type(value) is float and value.is_integer():
            value = int(value)
        if field.kind is tuple and isinstance(value, list):
            value = tuple(value)
        numbers: tuple[object, ...] = value if isinstance(value, tuple) else (value,)
        if field.choices:
            holds, allowed = value in field.choices, " or ".join(map(str, field.choices))
        elif field.kind in (int, tuple):
            holds = all(type(n) is int and 0 < n <= field.most for n in numbers)
            allowed = f"whole, from 1 to {field.most}"
        elif field.kind is float:
            holds = type(value) is float and 0 < value <= 1
            allowed = "a number above 0 and at most 1"
        else:
            holds, allowed = True, f"of type {field.kind.__name__}"
        if type(value) is not field.kind or not holds:
            raise UpstreamError(
                f"{self.where}: {name}={reprlib.repr(value)} is not read here; it must be {allowed}"
            )
        return value


def _example(field: Field) -> str:
    if field.choices:
        return "|".join(map(str, field.choices))
    return {bool: "true|false", int: "12", tuple: "5,2,2"}.get(field.kind, "TEXT")


def parse_settings(pairs: tuple[str, ...]) -> dict[str, str]:
    """``--set name=value`` by name.

    Raises:
        UpstreamError: one is not of that form, or a name comes twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value) or name in settings:
            raise UpstreamError(
                f"--set takes name=value, each name once, such as normalize=true; got {pair!r}"
            )
        settings[name.strip()] = value.strip()
    return settings


def convolutions(text: str, where: str) -> list[ConvolutionRow]:
    """A list of convolutions as fairseq writes it, ``[(512, 10, 5)] + [(512, 3, 2)] * 4``.

    It is a Python expression. It is parsed and never run: sums and products of lists of whole
    numbers are all that it may hold.

    Args:
        text: the expression.
        where: it stands, for messages.

    Returns:
        Channels, width and stride of each.

    Raises:
        UpstreamError: it holds anything else, or no convolution, or too many.
    """
    problem = UpstreamError(
        f"{where}: {text!r:.80} is no list of convolutions such as "
        "[(512, 10, 5)] + [(512, 3, 2)] * 4, of whole numbers above 0 and at most "
        f"{MOST_CONVOLUTIONS} entries"
    )
    if len(text) > LONGEST_EXPRESSION:
        raise problem

    def value(node: ast.AST) -> object:
        match node:
            case ast.Constant(value=int() as number) if type(number) is int:
                return number
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                kind = tuple if isinstance(node, ast.Tuple) else list
                return kind(map(value, parts))
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return _sum(value(left), value(right))
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return _product(value(left), value(right))
        raise TypeError

    try:
        rows = value(ast.parse(text.strip(), mode="eval").body)
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise problem from error
    if (
        not isinstance(rows, list)
        or not 0 < len(rows) <= MOST_CONVOLUTIONS
        or not all(
            isinstance(row, tuple | list)
            and len(row) == 3
            and all(type(number) is int and 0 < number <= MOST_SIZE for number in row)
            for row in rows
        )
    ):
        raise problem
    return [(row[0], row[1], row[2]) for row in rows]


def _sum(left: object, right: object) -> list[object]:
    if isinstance(left, list) and isinstance(right, list):
        return _few(left + right)
    raise TypeError


def _product(left: object, right: object) -> list[object]:
    if isinstance(left, list):
        left, right = right, left
    if type(left) is int and isinstance(right, list) and 0 <= left <= MOST_CONVOLUTIONS:
        return _few(right * left)
    raise TypeError


def _few(rows: list[object]) -> list[object]:
    if len(rows) > MOST_CONVOLUTIONS:
        raise ValueError
    return rows
