"""The tables of `superb bench`, and the same as records for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from benchmark.jobs.cost import format_time
from benchmark.probing.fit import available_cores
from superb.bench.encoder import CONTENDERS, OURS, Comparison
from superb.bench.extract import ENGINE, THEIRS, WAYS, Extracted
from superb.bench.probe import PARTS, Profile
from superb.bench.run import Projection
from superb.bench.timing import rounded
from superb.summary import plain_table

_SPREAD = "±: half the way from the slowest to the fastest"


def _table(title: str) -> Table:
    table = plain_table(escape(title))
    table.caption_justify = "left"
    return table


def encoder_table(comparison: Comparison) -> Table:
    """Seconds of audio per second of each implementation, and how far the machine is used."""
    table = _table(f"superb bench {comparison.upstream}: seconds of audio per second")
    table.add_column("audio")
    table.add_column("precision", no_wrap=True)
    for contender in CONTENDERS:
        table.add_column(contender, justify="right", style="bold" if contender == OURS else None)
    for column in ("ours / sdpa", "GFLOP per s", "of peak"):
        table.add_column(column, justify="right")
    for index, row in enumerate(comparison.rows):
        following = comparison.rows[index + 1 : index + 2]
        table.add_row(
            row.audio,
            row.precision,
            *("–" if rate is None else f"{rate:.1f}" for rate in map(row.rates.get, CONTENDERS)),
            f"{row.ratio:.2f}",
            f"{row.gflop_per_s:.1f}",
            f"{100 * row.peak_share:.0f} %",
            end_section=not following or following[0].audio != row.audio,
        )
    peaks = ", ".join(f"{peak:.0f} in {name}" for name, peak in comparison.peaks.items())
    plural = "s" if comparison.threads > 1 else ""
    lines = [
        f"{comparison.parameters / 1e6:.1f} M weights, {comparison.threads} thread{plural}, "
        f"median of {comparison.rounds} in turns; the same weights and hidden states in all",
        f"peak of a matrix product here, GFLOP/s: {peaks}",
        *comparison.notes,
    ]
    table.caption = escape("\n".join(lines))
    return table


def extract_table(rows: Sequence[Extracted], corpus: str, utterances: int, device: str) -> Table:
    """Seconds of audio per second in every way, and how far the device is used."""
    table = _table("extraction: seconds of audio per second, decoding and storing included")
    table.add_column("upstream", overflow="fold")
    table.add_column("precision", no_wrap=True)
    for way in WAYS:
        table.add_column(way, justify="right", style="bold" if way == ENGINE else None)
    table.add_column("of peak", justify="right")
    for row in rows:
        table.add_row(
            escape(row.upstream),
            row.precision,
            *(rounded(row.rates(way)) if way in row.timings else "–" for way in WAYS),
            "–" if row.peak_share is None else f"{100 * row.peak_share:.0f} %",
        )
    rounds = len(rows[0].timings[ENGINE].seconds)
    peaks = {row.precision: row.peak for row in rows}
    shown = ", ".join(f"{peak / 1e9:.0f} in {name}" for name, peak in peaks.items())
    lines = [
        f"measured on {device}: {utterances} utterances of {corpus}, {rows[0].audio_s / 60:.1f} "
        f"min; median of {rounds} in turns, {_SPREAD}",
        f"{ENGINE}: an utterance on each core, packs on a card, where the encoder allows it",
        f"{THEIRS}: padded batches of like length; – where it has no such model",
        f"of peak: the engine's arithmetic, of the fastest matrix product, GFLOP/s: {shown}",
    ]
    table.caption = escape("\n".join(lines))
    return table


def extract_record(row: Extracted) -> dict[str, Any]:
    """All times of one encoder, with rates in seconds of audio per second."""
    return {
        "upstream": row.upstream,
        "precision": row.precision,
        "audio_s": row.audio_s,
        "seconds": {way: timing.seconds for way, timing in row.timings.items()},
        "audio_s_per_s": {way: row.audio_s / t.median for way, t in row.timings.items()},
        "encoder_s": row.encoder_s.seconds,
        "macs_per_audio_s": row.macs,
        "peak_flop_per_s": row.peak,
        "peak_share": row.peak_share,
    }


def probe_table(profiles: Sequence[Profile]) -> Table:
    """Milliseconds and shares of the parts of an update, a column for each size."""
    table = _table(f"an update of one probe, {profiles[0].task}, weighted sum: ms and share")
    table.add_column("part", no_wrap=True)
    for profile in profiles:
        table.add_column(escape(f"{profile.upstream}\n{profile.protocol}"), justify="right")
    for part in PARTS:
        if any(profile.shares[part] for profile in profiles):
            cells = (
                f"{profile.update_ms(part):.1f} {100 * profile.shares[part]:3.0f} %"
                for profile in profiles
            )
            table.add_row(part, *cells, end_section=part == PARTS[-1])
    whole = (f"{1000 * p.whole.median / p.updates:.1f} 100 %" for p in profiles)
    table.add_row("whole update, not watched", *whole, style="bold")
    table.add_row("updates per second", *(rounded(p.rates) for p in profiles))
    lines = []
    for p in profiles:
        cores = "1 core" if p.device == "cpu" else p.device
        lines.append(
            f"{p.upstream}, {p.protocol}: features made up, for utterances of {p.what}; measured "
            f"on {cores}, median of {len(p.whole.seconds)} times {p.updates} updates, {_SPREAD}"
        )
    lines += [
        "parts: their shares of watched updates, of the time of one that is not watched",
        "reading, padding and masks are done once for all probes of a seed",
    ]
    table.caption = escape("\n".join(lines))
    return table


def probe_record(profile: Profile) -> dict[str, Any]:
    """All times of one size."""
    return {
        "upstream": profile.upstream,
        "task": profile.task,
        "protocol": profile.protocol,
        "material": profile.what,
        "heads_on": profile.device,
        "updates": profile.updates,
        "seconds": profile.whole.seconds,
        "updates_per_s": profile.updates / profile.whole.median,
        "watched_s": {part: timing.seconds for part, timing in profile.parts.items()},
        "shares": profile.shares,
    }


def run_table(runs: Sequence[Projection], device: str) -> Table:
    """What was measured of each run, and what it would take."""
    table = _table(f"a run of one encoder and both layer choices on {device}")
    table.add_column("upstream", overflow="fold")
    table.add_column("task, corpus")
    for column in ("audio", "x real time", "ms an update", "encode", "fit", "all"):
        table.add_column(column, justify="right")
    for run in runs:
        table.add_row(
            escape(f"{run.upstream}\n{run.precision}"),
            f"{run.task}, {run.corpus}\nprotocol {run.protocol}",
            f"{run.hours:.1f} h",
            rounded(tuple(1 / seconds for seconds in run.encoder.seconds)),
            rounded(tuple(1000 * seconds for seconds in run.update.seconds)),
            *(format_time(run.seconds(job)) for job in ("encode", "fit")),
            format_time(run.price.wall_s),
        )
    rounds = len(runs[0].update.seconds)
    lines = [
        "measured: x real time of the encoder alone, and an update of one probe, on noise as long "
        f"as the mean utterance; median of {rounds} in turns, {_SPREAD}",
        "projected from them: encode, fit, all. Looks at valid and test are not counted, nor that "
        "sid hears several crops of long utterances; superb plan --nodes 1 lists what is assumed",
        f"the processor trains as many probes at a time as it has cores, {available_cores()}",
    ]
    table.caption = escape("\n".join(lines))
    return table


def run_record(run: Projection) -> dict[str, Any]:
    """All that was measured of one run, and what was projected."""
    return {
        "upstream": run.upstream,
        "precision": run.precision,
        "task": run.task,
        "corpus": run.corpus,
        "protocol": run.protocol,
        "hours": run.hours,
        "utterances": run.utterances,
        "measured": {
            "encoder_s_per_audio_s": run.encoder.seconds,
            "update_s": run.update.seconds,
        },
        "projected": {"wall_s": run.price.wall_s, "jobs": [asdict(li) for li in run.price.lines]},
    }
