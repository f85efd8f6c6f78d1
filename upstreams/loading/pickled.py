"""A pickle read as the list of instructions that it is: nothing it names is imported or called.

Python's own unpickler makes the objects that a pickle asks for, and so runs what the pickle names.
Here its instructions (as the standard library's ``pickletools`` decodes them, protocols 0 to 5)
are followed on a stack of plain values. Where one of them names a class or function, a `Name` is
kept; where one calls it, a `Made` says what was to be called with what. There is nothing behind
either, so a hostile pickle is only data. Deep or shared structure costs no more than its bytes.

A pickle that asks for a call that no honest checkpoint needs is refused all the same, by this
rule: of Python's standard library, only `STANDARD` is called; of any other package, its classes
(by their place in the pickle, or their capital letter) and the functions in `FUNCTIONS`. What is
named and not called says nothing about its file.
"""

from __future__ import annotations

import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

# As calls of what the values of the standard library, and settings made of it, are pickled.
STANDARD = frozenset(
    f"{module}.{name}"
    for module, names in {
        "_codecs": ["encode"],
        "_operator": ["getitem"],
        "argparse": ["Namespace"],
        "builtins": [
            *("bytearray", "bytes", "complex", "frozenset", "object", "range", "set", "slice"),
            "type",
        ],
        "collections": ["Counter", "OrderedDict", "defaultdict", "deque"],
        "datetime": ["date", "datetime", "time", "timedelta", "timezone"],
        "decimal": ["Decimal"],
        "fractions": ["Fraction"],
        "functools": ["partial", "reduce"],
        "itertools": ["count"],
        "logging": ["getLogger"],
        "pathlib": ["Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"],
        "pathlib._local": ["PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"],
        "random": ["Random"],
        "re": ["_compile"],
        "types": ["GenericAlias", "MappingProxyType", "SimpleNamespace"],
        "uuid": ["UUID"],
    }.items()
    for name in names
)
# The same of other packages, as far as they are functions.
FUNCTIONS = frozenset(
    f"{module}.{name}"
    for module, names in {
        "numpy": ["dtype"],
        "numpy.core.multiarray": ["_reconstruct", "scalar"],
        "numpy._core.multiarray": ["_reconstruct", "scalar"],
        "numpy.core.numeric": ["_frombuffer"],
        "numpy._core.numeric": ["_frombuffer"],
        "numpy.random._pickle": [
            *("__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor")
        ],
        "torch": ["device"],
        "torch.serialization": ["_get_layout"],
        "torch._tensor": ["_rebuild_from_type_v2"],
        "torch._utils": [
            *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"),
            *("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_sparse_tensor"),
            *("_rebuild_device_tensor_from_numpy", "_rebuild_device_tensor_from_cpu_tensor"),
            *("_rebuild_meta_tensor_no_storage", "_rebuild_xla_tensor"),
        ],
        "torch.nn.backends.thnn": ["_get_thnn_function_backend"],
    }.items()
    for name in names
)
# Parts of one key of a dictionary. A few bytes can nest tuples so that hashing takes for ever.
KEY_PARTS = 1000
# Of a whole number: states of random generators have 128. Python refuses to print very large ones.
NUMBER_BITS = 1024

_PUSHED = frozenset(
    {
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1"),
        *("BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT", "BINBYTES"),
        *("SHORT_BINBYTES", "BINBYTES8"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], object]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class RefusedError(Exception):
    """A pickle asks for what no honest checkpoint needs; the text names it."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names: ``fairseq.data.dictionary.Dictionary``."""

    name: str


@dataclass(eq=False)
class Made:
    """An object that would have been made.

    Attributes:
        kind: name of its class, or of the function that makes it.
        arguments: for that.
        called: `kind` is called, as a function can be; else it is a class.
        state: what the object would have been given then, or None.
        items: what it would have been given as a dictionary.
        members: what it would have been given as a list or set.
    """

    kind: str
    arguments: tuple[object, ...]
    called: bool
    state: object = None
    items: dict[object, object] = field(default_factory=dict)
    members: list[object] = field(default_factory=list)


def follow(file: IO[bytes], persistent: Callable[[object], object]) -> object:
    """Follow the instructions of one pickle.

    Args:
        file: at the pickle's first byte; afterwards behind its last.
        persistent: what stands for an object that the pickle keeps outside of itself, by its id.

    Returns:
        Dicts, lists, tuples, sets, numbers, strings, bytes, `Name`, `Made`, and what `persistent`
        gave; they may refer to each other in circles.

    Raises:
        RefusedError: it asks for a call that is refused.
        Exception: of any other kind: it is damaged.
    """
    stack: list[object] = []
    marked: list[list[object]] = []
    memo: dict[int, object] = {}
    protocol = 0

    def since_mark() -> list[object]:
        nonlocal stack
        items, stack = stack, marked.pop()
        return items

    given: Any
    for instruction, given, _ in pickletools.genops(file):
        match instruction.name:
            case code if code in _PUSHED:
                if isinstance(given, int) and given.bit_length() > NUMBER_BITS:
                    raise ValueError(f"a whole number of more than {NUMBER_BITS} bits")
                stack.append(given)
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                memo[given] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(memo[given])
            case code if code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            case code if code in _EMPTY:
                stack.append(_EMPTY[code]())
            case code if code in _TUPLES:
                stack[-_TUPLES[code] :] = [tuple(stack[-_TUPLES[code] :])]
            case "MARK":
                marked.append(stack)
                stack = []
            case "TUPLE":
                items = since_mark()
                stack.append(tuple(items))
            case "LIST":
                items = since_mark()
                stack.append(items)
            case "DICT":
                items = since_mark()
                stack.append({})
                _set_items(stack[-1], items)
            case "FROZENSET":
                items = since_mark()
                stack.append(frozenset(map(hashable, items)))
            case "SETITEMS":
                items = since_mark()
                _set_items(stack[-1], items)
            case "SETITEM":
                items = [stack.pop(), stack.pop()][::-1]
                _set_items(stack[-1], items)
            case "APPENDS" | "ADDITEMS":
                items = since_mark()
                _extend(stack[-1], items)
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(_text(given))
            case "BYTEARRAY8":
                stack.append(bytes(given))
            case "GLOBAL":
                stack.append(_named(given, protocol))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise ValueError("a name that is no text")
                stack.append(Name(f"{module}.{name}"))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                stack.append(_called(called, arguments))
            case "NEWOBJ":
                arguments, kind = stack.pop(), stack.pop()
                stack.append(_new(kind, arguments))
            case "NEWOBJ_EX":
                keywords, arguments, kind = stack.pop(), stack.pop(), stack.pop()
                if not isinstance(arguments, tuple):
                    raise ValueError("arguments that are no tuple")
                stack.append(_new(kind, (*arguments, keywords) if keywords else arguments))
            case "INST":
                items = since_mark()
                stack.append(_new(_named(given, protocol), tuple(items)))
            case "OBJ":
                kind, *items = since_mark()
                stack.append(_new(kind, tuple(items)))
            case "BUILD":
                state = stack.pop()
                _build(stack[-1], state)
            case "BINPERSID":
                stack.append(persistent(stack.pop()))
            case "DUP":
                stack.append(stack[-1])
            case "POP":
                # Where nothing stands above the last mark, it is the mark that goes.
                _ = stack.pop() if stack else since_mark()
            case "POP_MARK":
                since_mark()
            case "PROTO":
                protocol = given
            case "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case code:  # extension codes, buffers outside of the file, ids as text
                raise RefusedError(f"uses the instruction {code}, which torch.save never writes")
    raise EOFError("no end")  # pragma: no cover - genops has raised by then


def hashable(
    value: object, opened: Callable[[object], Iterable[object]] = lambda part: ()
) -> object:
    """The value, if it can be a key without much work.

    Args:
        value: of any kind.
        opened: the parts of what is no tuple, as far as its hash depends on them.

    Raises:
        ValueError: it has more than `KEY_PARTS` parts.
    """
    if isinstance(value, str):
        return value
    found = [value]
    for _ in range(KEY_PARTS):
        if not found:
            return value
        part = found.pop()
        found.extend(part[:KEY_PARTS] if isinstance(part, tuple) else opened(part))
    raise ValueError("a key with too many parts")


def _set_items(target: object, items: list[object]) -> None:
    into = target.items if isinstance(target, Made) else target
    if not isinstance(into, dict):
        raise ValueError("items for what is no dictionary")
    into.update(zip(map(hashable, items[::2]), items[1::2], strict=True))


def _extend(target: object, items: Iterable[object]) -> None:
    match target:
        case list():
            target.extend(items)
        case set():
            target.update(map(hashable, items))
        case Made():
            target.members.extend(items)
        case _:
            raise ValueError("members for what is no list")


def _text(given: str) -> str | bytes:
    """A string of Python 2, which did not tell text from bytes; pickletools gives it as Latin-1."""
    raw = given.encode("latin-1")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _named(given: str, protocol: int) -> Name:
    """A name as Python 3 has it; below protocol 3, pickles have those of Python 2."""
    module, _, name = given.partition(" ")
    if protocol < 3:
        if (module, name) in NAME_MAPPING:
            module, name = NAME_MAPPING[module, name]
        else:
            module = IMPORT_MAPPING.get(module, module)
    return Name(f"{module}.{name}")


def _called(called: object, arguments: object) -> Made:
    """What calling something would have made."""
    if not isinstance(arguments, tuple):
        raise ValueError("arguments that are no tuple")
    match (called, *arguments):
        case (Name("builtins.getattr"), Name(kind), str(member)) if not _standard(kind):
            # A member of an enumeration that is pickled by its name, or a method of a class.
            return Made(_class(kind), (member,), called=True)
        case (Name("torch._tensor._rebuild_from_type_v2" as name), function, *_):
            _called(function, ())  # which that one would call
            return Made(name, arguments, called=True)
        case (Name("builtins.getattr" as name), Made(), str()):  # a method of an object
            return Made(name, arguments, called=True)
        case (Name(name), *_):
            known = STANDARD if _standard(name) else FUNCTIONS
            return Made(name if name in known else _class(name), arguments, called=True)
        case _:
            raise RefusedError("asks to call what a call before has made")


def _new(kind: object, arguments: object) -> Made:
    """An instance that a class would have made."""
    if not isinstance(kind, Name) or not isinstance(arguments, tuple):
        raise ValueError("an instance of what is no class")
    if _standard(kind.name) and kind.name not in STANDARD:
        raise RefusedError(f"asks to call {shown(kind.name)}")
    return Made(kind.name, arguments, called=False)


def _build(made: object, state: object) -> None:
    if isinstance(made, Name):
        raise RefusedError(f"asks to change {shown(made.name)}")
    if not isinstance(made, Made):
        raise ValueError("a state for what is no object")
    made.state = state


def _class(name: str) -> str:
    """The name, if it is that of a class outside the standard library.

    Raises:
        RefusedError: it is not.
    """
    own = name.rpartition(".")[2].removeprefix("__pyx_unpickle_")  # so Cython's are pickled
    if _standard(name) or not own.strip("_")[:1].isupper():
        raise RefusedError(f"asks to call {shown(name)}")
    return name


def _standard(name: str) -> bool:
    """Of Python's standard library?"""
    return name.partition(".")[0] in sys.stdlib_module_names


def shown(name: str) -> str:
    """A name that comes from a stranger, for messages."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:100])
