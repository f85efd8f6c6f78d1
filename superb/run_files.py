"""Runs as files: TOML with the options of ``superb run`` as keys, read, laid over, and written."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmark.errors import SuperbError, unknown
from downstreams import DOWNSTREAMS, PROTOCOLS
from downstreams.corpora import CORPORA, MANIFEST_SUFFIXES, Manifest
from superb.spec import OPTIONS, RunFile, RunSpec
from upstreams.catalogue import UPSTREAMS

GROUP: Final = "run"
"""The list of tables, each of which is a run and has the keys above them too."""
TYPED: Final = ("dry-run", "json", "print-config", "quiet")
"""Options that say what is shown, not what is run."""
CORPUS: Final = ("data-root", "train-split", "valid-split", "test-split")
"""Keys that a table of a corpus may hold, beside its name and its manifest."""
# Ends of what can only be the name of a file.
_FILES: Final = (".py", ".toml", ".pt", ".pth", ".ckpt", ".safetensors", *MANIFEST_SUFFIXES)


def key_of(option: str) -> str:
    """How the command line and files spell an option of `RunSpec`."""
    return "set" if option == "settings" else option.replace("_", "-")


_OPTION: Final = {key_of(name): name for name in OPTIONS}
_NAMES: Final = {*UPSTREAMS, *DOWNSTREAMS, *CORPORA}


@dataclass(frozen=True)
class Asked:
    """A run as it is written down: keys with plain values, paths as seen from here.

    Attributes:
        values: key → text, number, truth, list of texts; or a table, of a corpus or a protocol.
        file: that it is of; None of a command line.
        of_corpus: keys that a table of its corpus had, and that say nothing of another one.
    """

    values: Mapping[str, Any]
    file: RunFile | None = None
    of_corpus: frozenset[str] = frozenset()

    def overruled(self, typed: Mapping[str, Any]) -> Asked:
        """The same with what was typed beside it; another corpus takes the place of a table."""
        gone = self.of_corpus if "corpus" in typed else frozenset()
        kept = {key: value for key, value in self.values.items() if key not in gone}
        return Asked({**kept, **typed}, self.file, self.of_corpus - gone)

    def spec(self) -> RunSpec:
        """The run that it is.

        Raises:
            SuperbError: it names no encoder or no task, or a protocol that stands in it is none.
        """
        for key in ("upstream", "downstream"):
            if not self.values.get(key):
                where = "Missing option" if self.file is None else f"{self.file.place}: missing key"
                name = f"--{key}" if self.file is None else key
                raise SuperbError(f"{where} {name}: superb {key}s lists what it can be")
        made: dict[str, Any] = {}
        for key, value in self.values.items():
            made[_OPTION[key]] = self._made(key, value)
        return RunSpec(**made, file=self.file)

    def _made(self, key: str, value: Any) -> Any:  # noqa: ANN401 - of any option's type
        kind = str(OPTIONS[_OPTION[key]].type)
        if key == "corpus" and isinstance(value, Mapping):
            return Manifest(Path(value["manifest"]).expanduser(), value.get("name", ""))
        if key == "protocol" and isinstance(value, Mapping):
            from benchmark.protocol import inline_protocol

            where = "protocol" if self.file is None else self.file.name
            return inline_protocol(value, Path(where), PROTOCOLS)
        if kind.startswith("tuple"):
            return tuple(value)
        return Path(value).expanduser() if kind.startswith("Path") else value


# Reading ---------------------------------------------------------------------------------------


def read_run_file(path: Path) -> list[Asked]:
    """All runs of a file.

    Args:
        path: TOML. Keys hold for all of its tables ``[[run]]``; without such a table, it is one
            run. Relative paths start from its folder.

    Raises:
        SuperbError: it cannot be read, or holds an unknown key or a value of a wrong type; the
            message has the line.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
        table = tomllib.loads(text.replace("\r\n", "\n"))
    except OSError as error:
        raise SuperbError(f"run file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also of numbers of 5,000 digits
        raise SuperbError(f"{path} is not valid TOML: {error}") from error
    groups = table.pop(GROUP, [{}])
    if not isinstance(groups, list) or not groups or not all(isinstance(g, dict) for g in groups):
        raise SuperbError(f"{path}: {GROUP} must be tables, each under a line [[{GROUP}]]")
    lines = _Lines(path, text)
    common = _checked(table, path.parent, partial(lines.of, group=0))
    digest = hashlib.sha256(data).hexdigest()
    asked = []
    for place, group in enumerate(groups, start=1):
        own = _checked(group, path.parent, partial(lines.of, group=place))
        where = lines.table(place) if len(groups) > 1 else str(path)
        values, of_corpus = _flat({**common, **own}, where)
        asked.append(Asked(values, RunFile(path.name, digest, where), of_corpus))
    return asked


@dataclass(frozen=True)
class _Lines:
    """Where in a file something stands, which the TOML reader does not tell."""

    path: Path
    text: str

    def of(self, key: str, group: int) -> str:
        """The line of a key: of one of the tables ``[[run]]``, counted from 1, or above them."""
        spelt = rf"""\s*(\[\s*({GROUP}\s*\.\s*)?)?["']?{re.escape(key)}["']?\s*[=.\]]"""
        for number, line in self._part(group):
            if re.match(spelt, line):
                return f"{self.path}, line {number}"
        return str(self.path)

    def table(self, group: int) -> str:
        """The heading of a table ``[[run]]``."""
        number = next((number for number, _ in self._part(group)), 0)
        return f"{self.path}, [[{GROUP}]] {group} (line {number})"

    def _part(self, group: int) -> Iterator[tuple[int, str]]:
        seen = 0
        for number, line in enumerate(self.text.splitlines(), start=1):
            seen += bool(re.match(rf"\s*\[\[\s*{GROUP}\s*\]\]", line))
            if seen == group:
                yield number, line


def _checked(table: Mapping[str, Any], folder: Path, line: Callable[[str], str]) -> dict[str, Any]:
    """The values of a table, paths as seen from here.

    Raises:
        SuperbError: an unknown key, or a value of a wrong type.
    """
    values = {}
    for key, value in table.items():
        if key in TYPED:
            raise SuperbError(f"{line(key)}: {key} says what is shown: type --{key} instead")
        if key not in _OPTION:
            raise SuperbError(f"{line(key)}: {unknown('key', key, [*_OPTION, GROUP])}")
        values[key] = _value(key, value, folder, line(key))
    return values


def _value(key: str, value: object, folder: Path, where: str) -> Any:  # noqa: ANN401 - as given
    _require_plain(key, value, where)
    kind = str(OPTIONS[_OPTION[key]].type)
    if kind.startswith("tuple"):
        return _texts(key, value, folder, where)
    if isinstance(value, Mapping) and key == "corpus":
        return _corpus(value, folder, where)
    if isinstance(value, Mapping) and key == "protocol":
        base = value.get("base")
        known = {"base": beside(base, folder, folders=False)} if isinstance(base, str) else {}
        return {**value, **known}
    if kind.startswith(("int", "bool")):
        wanted, words = (int, "a whole number") if kind[0] == "i" else (bool, "true or false")
        if type(value) is not wanted:
            raise SuperbError(f"{where}: {key} must be {words}, got {value!r}")
        return value
    if not isinstance(value, str):
        also = " or a table" if key in ("corpus", "protocol") else ""
        raise SuperbError(f"{where}: {key} must be text{also}, got {value!r}")
    if kind.startswith("Path") and value != "letters":
        return _joined(value, folder)
    if key in ("corpus", "protocol"):
        return beside(value, folder, folders=key == "corpus")
    return value


def _require_plain(key: str, value: object, where: str) -> None:
    """Refuse what no option has: dates, and texts that no path or name can be.

    Raises:
        SuperbError: it is one, or holds one.
    """
    if isinstance(value, Mapping):
        for own in value.values():
            _require_plain(key, own, where)
    elif isinstance(value, list):
        for own in value:
            _require_plain(key, own, where)
    elif isinstance(value, str) and "\0" in value:
        raise SuperbError(f"{where}: {key} holds a character of code 0, which no name has")
    elif not isinstance(value, str | int | float):
        raise SuperbError(
            f"{where}: {key} holds {value}; allowed are text, numbers, true, false, lists, tables"
        )


def _texts(key: str, value: object, folder: Path, where: str) -> list[str]:
    """The value of an option that can be given several."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise SuperbError(f"{where}: {key} must be a text or a list of texts, got {value!r}")
    if isinstance(value, str) and "," in value and key != "set":
        parts = json.dumps([part.strip() for part in value.split(",")])
        raise SuperbError(f"{where}: several go into a list: {key} = {parts}")
    if key in ("upstream", "downstream", "head"):
        return [beside(item, folder, folders=key == "upstream") for item in listed]
    return listed


def _corpus(table: Mapping[str, Any], folder: Path, where: str) -> dict[str, Any]:
    """A table that says all there is to say of a corpus."""
    allowed = ("name", "manifest", *CORPUS)
    for key, value in table.items():
        if key not in allowed:
            raise SuperbError(f"{where}: {unknown('key of corpus', key, allowed)}")
        if not isinstance(value, str):
            raise SuperbError(f"{where}: {key} of corpus must be text, got {value!r}")
    if not {"name", "manifest"} & table.keys():
        raise SuperbError(f"{where}: corpus needs a name (superb corpora), a manifest, or both")
    paths = {key: _joined(table[key], folder) for key in ("manifest", "data-root") if key in table}
    if "manifest" not in table:  # without one, a name is what --corpus takes, a file too
        paths["name"] = beside(table["name"], folder)
    return {**table, **paths}


def _flat(values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], frozenset[str]]:
    """A table of a corpus as the options that it stands for, and which these are."""
    corpus = values.get("corpus")
    if not isinstance(corpus, Mapping):
        return dict(values), frozenset()
    own = {key: corpus[key] for key in CORPUS if key in corpus}
    if twice := sorted(own.keys() & values.keys()):
        raise SuperbError(f"{where}: {twice[0]} is in the table corpus and again outside of it")
    named = {key: corpus[key] for key in ("name", "manifest") if key in corpus}
    flat = {**values, **own, "corpus": named if "manifest" in named else named["name"]}
    return flat, frozenset(own)


def beside(text: str, folder: Path, *, folders: bool = True) -> str:
    """A name as it is; what is the path of something, in a folder.

    What has a path's look (``./``, ``../``, an ending such as ``.py``) is one. A path may stand
    before or after a colon, as after ``untrained:``.

    Args:
        text: as written.
        folder: that it was written in.
        folders: whether what is there, and is no name of ours, is a path too.
    """
    if folder == Path():
        return text
    if text.startswith(("hf:", "hf-stream:")):
        return text

    def is_path(part: str) -> bool:
        if part.startswith(("./", "../")) or part.endswith(_FILES):
            return True
        return folders and part not in {"", *_NAMES} and (folder / part).exists()

    return ":".join(_joined(part, folder) if is_path(part) else part for part in text.split(":"))


def _joined(path: str, folder: Path) -> str:
    """A path of a file as seen from here; absolute ones stay, and those that start at home."""
    return path if path.startswith("~") else str(folder / path)


# Writing ---------------------------------------------------------------------------------------


def write_run_file(asked: Sequence[Asked]) -> str:
    """The file of some runs: what all of them have in common, then a table for each.

    Paths are as seen from here, so it is a file of this folder.
    """
    first = asked[0].values
    common = {
        key: value
        for key, value in first.items()
        if all(key in other.values and other.values[key] == value for other in asked)
    }
    text = "# superb run FILE; paths in it are relative to its folder\n"
    text += "".join(_written(common))
    if len(asked) > 1:
        for group in asked:
            own = {key: value for key, value in group.values.items() if key not in common}
            text += f"\n[[{GROUP}]]\n" + "".join(_written(own, (GROUP,)))
    else:
        left = [
            f"# {key_of(name)} = {_toml(_plain(field.default))}\n"
            for name, field in OPTIONS.items()
            if key_of(name) not in common and isinstance(field.default, str | int | Path | tuple)
        ]
        text = _before_tables(text, "# what else there is, as it is where nothing is said:\n", left)
    return text


def _before_tables(text: str, title: str, lines: Sequence[str]) -> str:
    """A text with lines of comment before its first table."""
    head, table, rest = text.partition("\n[")
    return head + title + "".join(lines) + table + rest


def _written(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    """The lines of a table: values first, since what follows a table's heading is its own."""
    for key, value in table.items():
        if not isinstance(value, Mapping):
            yield f"{_key(key)} = {_toml(value)}\n"
    for key, value in table.items():
        if isinstance(value, Mapping):
            path = (*above, key)
            yield f"\n[{'.'.join(map(_key, path))}]\n"
            yield from _written(value, path)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _toml(text)


def _toml(value: object) -> str:
    """A value on one line."""
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(key)} = {_toml(own)}' for key, own in value.items())} }}"
    return repr(value)
