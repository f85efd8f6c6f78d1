"""A fault that people's files have, what superb must make of it, and the check of it."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import soundfile

from tests.made import QUICK, RATE, SPEAKERS, WORDS, tone


@dataclass(frozen=True)
class Fault:
    """One row of docs/reliability.md."""

    kind: str
    given: str
    then: str
    check: Callable[[Path], None]


FAULTS: list[Fault] = []


def fault(given: str, then: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Make a row of a check: what is given, what superb must do; it gets an empty folder."""

    def keep(check: Callable[[Path], None]) -> Callable[[Path], None]:
        FAULTS.append(Fault(check.__module__.rpartition(".")[2], given, then, check))
        return check

    return keep


# Commands --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """How a command ended, and everything that reached the terminal, C libraries included."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """All of standard error in one line, however it was wrapped."""
        return " ".join(self.err.split())


def superb(*words: object) -> Answer:
    """Run a command in this process; a traceback becomes exit code 1."""
    from superb.cli import main

    code = 0
    arguments, sys.argv = sys.argv, ["superb", *map(str, words)]
    try:
        with _terminal() as said:
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(bool(end.code))
            except Exception:
                traceback.print_exc()
                code = 1
    finally:
        sys.argv = arguments
    return Answer(code, *said)


@contextmanager
def _terminal() -> Iterator[list[str]]:
    """Both streams, caught where the operating system has them."""
    said: list[str] = []
    kept = sys.stdout, sys.stderr
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as err,
    ):
        saved = [os.dup(number) for number in (1, 2)]
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout, sys.stderr = out, err
        try:
            yield said
        finally:
            sys.stdout, sys.stderr = kept
            for number, (stream, before) in enumerate(zip((out, err), saved, strict=True), start=1):
                stream.flush()
                os.dup2(before, number)
                os.close(before)
                stream.seek(0)
                said.append(stream.read())


def run(folder: Path, corpus: Path, downstream: str = "ks", *more: object) -> Answer:
    """The quick run of fbank on a corpus; results lie in ``folder/results``."""
    protocol = folder / "quick.toml"
    protocol.write_text(QUICK, encoding="utf-8")
    return superb(
        "run", "-u", "fbank", "-d", downstream, "--layers", "last", "--corpus", corpus,
        "--protocol", protocol, "-o", folder / "results", "--cache-dir", folder / "cache", *more,
    )  # fmt: skip


def refused(answer: Answer, *parts: str) -> None:
    """One message that says these parts, exit code 2, nothing else."""
    assert answer.code == 2, answer
    assert answer.err.startswith("error: ") or "\nerror: " in answer.err, answer
    assert "Traceback" not in answer.err, answer
    for part in parts:
        assert part in answer.words, (part, answer.words)


# Corpora ---------------------------------------------------------------------------------------

SPLITS = ("train", "train", "valid", "test", "test")


def rows() -> list[dict[str, str]]:
    """Sixty tones: four speakers, three words, two takes to train on, one valid, two to test."""
    return [
        {
            "audio": f"{speaker}-{word}-{take}.wav",
            "split": split,
            "speaker": speaker,
            "text": word,
            "label": word,
        }
        for speaker in SPEAKERS
        for word in WORDS
        for take, split in enumerate(SPLITS)
    ]


def record(folder: Path, of: Sequence[Mapping[str, str]]) -> None:
    """Write the tones that rows name as WAV files."""
    for row in of:
        speaker, word, take = Path(row["audio"]).stem.split("-")
        soundfile.write(folder / row["audio"], tone(word, speaker, int(take)), RATE)


def manifest(folder: Path, of: Sequence[Mapping[str, str]], name: str = "own.tsv") -> Path:
    """Write rows, as they are and without any quoting, as a tab-separated table."""
    lines = ["\t".join(of[0]), *("\t".join(row.values()) for row in of)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
