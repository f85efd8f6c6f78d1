"""The command line. Every command imports what it needs when it runs, so ``--help`` is instant."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

import superb
from benchmark.errors import SuperbError
from superb.commands import encoders, lists, results, score, share
from superb.commands.cache import cache_app
from superb.commands.data import data_app
from superb.commands.export import export_app
from superb.commands.predict import demo, predict

FIRST_STEPS: Final = """\
superb scores self-supervised speech encoders: frozen layers, light heads,
honest intervals.

  superb run --upstream hubert --downstream asr  # an encoder's score on a task
  superb leaderboard results/                    # tables of all scores so far
  superb report results/                         # one page with all there is

What can stand for hubert and asr: superb upstreams, superb downstreams.
All commands: superb --help
"""

app = typer.Typer(
    name="superb",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: Final[dict[str, tuple[Callable[..., None], ...]]] = {
    "Score encoders": (score.run, score.plan),
    "Use trained heads": (predict, demo),
    "Read results": (
        results.leaderboard,
        results.compare,
        results.layers,
        results.heads,
        results.labels,
        results.reproduce,
        results.report,
        share.diff,
    ),
    "Share results": (share.submit, share.site),
    "Encoders of one's own": (
        encoders.pretrain,
        encoders.convert,
        encoders.check,
        encoders.bench,
    ),
    "What there is": (lists.upstreams, lists.downstreams, lists.corpora, lists.objectives),
}
for group, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=group)(command)
app.add_typer(export_app, name="export", rich_help_panel="Read results")
app.add_typer(data_app, name="data", rich_help_panel="Data and disk")
app.add_typer(cache_app, name="cache", rich_help_panel="Data and disk")


class _Warnings(logging.Handler):
    """What our own code warns of, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one warning; file names in it come from strangers."""
        from leaderboard.read.names import printable

        print(printable(record.getMessage()), file=sys.stderr)


def main() -> None:
    """Enter from the shell: exit code 2 and one message for bad input, 130 after Ctrl-C."""
    # interval notation, x, arrows: keep them on terminals that claim to know only ASCII
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    # libmpg123 talks to file descriptor 2, which is shut while MP3 is decoded: have another
    with suppress(OSError, ValueError):
        if sys.stderr.fileno() == 2:
            sys.stderr = os.fdopen(os.dup(2), "w", 1, sys.stderr.encoding, "replace")
    # Threads of the encoder that wait by spinning make it tens of times slower whenever another
    # program wants the core; read by OpenMP when torch is imported, which comes later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # a batch system's end is an interrupt like Ctrl-C: what is finished is kept
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for package in ("benchmark", "leaderboard"):
        logging.getLogger(package).handlers = [_Warnings(logging.WARNING)]
    try:
        app()
    except SuperbError as error:
        from leaderboard.read.names import printable

        # names and paths come from strangers: what they hold may not steer the terminal
        text = "\n".join(map(printable, str(error).splitlines()))
        Console(stderr=True, highlight=False, emoji=False).print(
            f"[bold red]error:[/] {escape(text)}", soft_wrap=True
        )
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"superb {superb.__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Benchmark self-supervised speech encoders: frozen layers, light heads, honest intervals."""
    if context.invoked_subcommand is None:
        print(FIRST_STEPS, end="")
