"""Does memory stay flat, and does a run start at once? Extraction over made-up audio, measured.

``python -m superb.scale --hours 1,10,100 --rows 280000 --output docs`` generates noise and
extracts time means of FBANK from it, in a process of its own for each size; it writes ``scale.csv``
(rows of other sizes stay) and ``scale.png``. With ``--rows`` it also times the start on a manifest
of so many files, once when nothing of them is known and once when all of them are.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from torch import Tensor

from benchmark.core import HiddenStates, Upstream, Utterance
from benchmark.encoding.features import Encoded, Extraction, ExtractionSettings, extract
from benchmark.progress import Progress

_RATE = 16_000
_SECONDS = 10
_SOURCES = 100  # files that a big manifest links to; one file takes 65,000 links on ext4
_HOUR_AGO_S = 3600.0
_FIELDS = ("hours", "files", "seconds", "start_mb", "peak_mb")


def make_audio(folder: Path, hours: float) -> None:
    """Write files of ten seconds in FLAC, each a second of noise of its own in silence."""
    for index in range(round(hours * 3600 / _SECONDS)):
        random = np.random.default_rng(index)
        wave = np.zeros(_SECONDS * _RATE, np.float32)
        place = int(random.integers((_SECONDS - 1) * _RATE))
        wave[place : place + _RATE] = 0.1 * random.standard_normal(_RATE)
        soundfile.write(folder / f"{index:06d}.flac", wave, _RATE)


def make_manifest(folder: Path, rows: int) -> Path:
    """A manifest of many files, which are links to a few of a tenth of a second."""
    past = time.time() - _HOUR_AGO_S
    for index in range(_SOURCES):
        wave = 0.1 * np.random.default_rng(index).standard_normal(_RATE // 10)
        soundfile.write(folder / f"source-{index}.flac", wave, _RATE)
        os.utime(folder / f"source-{index}.flac", (past, past))
    manifest = folder / "many.tsv"
    with manifest.open("w", encoding="utf-8") as file:
        file.write("audio\tsplit\tspeaker\tlabel\n")
        for row in range(rows):
            name = f"{row // 1000:04d}/{row:07d}.flac"
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).hardlink_to(folder / f"source-{row % _SOURCES}.flac")
            split = "test" if row % 20 == 0 else "valid" if row % 20 == 1 else "train"
            file.write(f"{name}\t{split}\ts{row % 1000}\t{('yes', 'no')[row % 2]}\n")
    return manifest


class _Watched:
    """An encoder that notes when it was first asked."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream, self.card, self.first = upstream, upstream.card, 0.0

    def __call__(self, waveforms: list[Tensor]) -> HiddenStates:
        self.first = self.first or time.perf_counter()
        return self.upstream(waveforms)


def _fbank() -> Upstream:
    from upstreams.loading.load import load_upstream

    return load_upstream("fbank")


def _extract(upstream: Upstream, utterances: Sequence[Utterance], cache: Path) -> Encoded:
    wanted = {"mean": utterances}
    extraction = Extraction(upstream, "scale", wanted, ExtractionSettings(cache))
    return extract(extraction, Progress(quiet=True))


def measure_extraction(folder: Path) -> dict[str, float]:
    """Extract from all files of a folder, in this process."""
    upstream = _fbank()
    utterances = [Utterance(path.stem, path, "train") for path in sorted(folder.glob("*.flac"))]
    start = _peak_mb()
    started = time.perf_counter()
    features = _extract(upstream, utterances, folder / "cache")
    return {
        "hours": round(features.audio_s / 3600, 2),
        "files": len(features.keys),
        "seconds": round(time.perf_counter() - started, 1),
        "start_mb": round(start),
        "peak_mb": round(_peak_mb()),
    }


def measure_start(manifest: Path) -> dict[str, float]:
    """Seconds from a manifest to the first utterance in the encoder, or to the end without one."""
    from downstreams.corpora.load import load_corpus
    from downstreams.load import load_downstream

    upstream = _Watched(_fbank())
    started = time.perf_counter()
    corpus = load_corpus(str(manifest), load_downstream("ks").card)
    loaded = time.perf_counter()
    _extract(upstream, corpus.utterances, manifest.parent / "cache")
    ended = time.perf_counter()
    return {
        "rows": len(corpus.utterances),
        "manifest_s": round(loaded - started, 1),
        "ready_s": round((upstream.first or ended) - loaded, 1),
        "all_s": round(ended - loaded, 1),
        "peak_mb": round(_peak_mb()),
    }


def _peak_mb() -> float:
    """The most memory that this process has held, in megabytes."""
    # on Linux, what getrusage says includes the process that started this one
    if (status := Path("/proc/self/status")).exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _apart(task: str, place: Path) -> dict[str, Any]:
    """Measure in a process of its own, whose memory is nobody else's."""
    command = [sys.executable, "-m", "superb.scale", task, str(place)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def add_rows(file: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Put rows into a table in place of those of the same size; all rows, smallest first."""
    table: dict[float, dict[str, str]] = {}
    if file.exists():
        with file.open(newline="", encoding="utf-8") as old:
            table = {float(row["hours"]): row for row in csv.DictReader(old)}
    table |= {float(row["hours"]): {name: str(row[name]) for name in _FIELDS} for row in rows}
    ordered = [table[hours] for hours in sorted(table)]
    with file.open("w", newline="", encoding="utf-8") as new:
        writer = csv.DictWriter(new, _FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)
    return ordered


def draw(rows: Sequence[dict[str, str]], file: Path) -> None:
    """Peak memory and time over hours of audio."""
    from matplotlib.figure import Figure

    hours = [float(row["hours"]) for row in rows]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    memory, duration = figure.subplots(1, 2)
    for name, label in (("peak_mb", "peak"), ("start_mb", "before the first file")):
        memory.plot(hours, [float(row[name]) for row in rows], "o-", label=label)
    top = 1.2 * max(float(row["peak_mb"]) for row in rows)
    memory.set(ylabel="resident memory, MB", xscale="log", ylim=(0, top))
    memory.legend(loc="lower right")
    seconds = [float(row["seconds"]) for row in rows]
    duration.plot(hours, seconds, "o-")
    duration.set(ylabel="extraction, s", xscale="log", yscale="log")
    duration.set_yticks(seconds, [f"{value:.0f}" for value in seconds])
    for axes in (memory, duration):
        axes.set_xlabel("hours of audio")
        axes.set_xticks(hours, [f"{size:g}" for size in hours])
        axes.minorticks_off()
    figure.savefig(file, dpi=120)


def _sizes(text: str) -> list[float]:
    """Hours as typed; argparse explains the ValueError of what is no number."""
    return [float(hours) for hours in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command of the module's first lines."""
    parser = argparse.ArgumentParser(prog="python -m superb.scale", description=__doc__)
    parser.add_argument("--hours", type=_sizes, default=[], help="sizes such as 1,10,100")
    parser.add_argument("--rows", type=int, default=0, help="files of a big manifest")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--extraction", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.extraction:
        print(json.dumps(measure_extraction(options.extraction)))
        return
    if options.start:
        print(json.dumps(measure_start(options.start)))
        return
    measured = []
    for hours in options.hours:
        with tempfile.TemporaryDirectory() as folder:
            make_audio(Path(folder), hours)
            measured.append(_apart("--extraction", Path(folder)))
            print(measured[-1], flush=True)
    if measured:
        draw(add_rows(options.output / "scale.csv", measured), options.output / "scale.png")
    if options.rows:
        with tempfile.TemporaryDirectory() as folder:
            manifest = make_manifest(Path(folder), options.rows)
            for state in ("first run", "second run"):
                print(state, _apart("--start", manifest), flush=True)


if __name__ == "__main__":
    main()
