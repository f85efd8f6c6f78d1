"""``superb export``: results for other programs and for model cards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from superb.commands.options import Results, deliver

export_app = typer.Typer(help="Results as a model card's metadata or as a table.")


@export_app.command(name="model-card")
def model_card(
    upstream: Annotated[
        str, typer.Option("--upstream", "-u", help="Name of the encoder in the leaderboard.")
    ],
    results: Results = Path("results"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here.")] = None,
) -> None:
    """Metadata for the start of a Hugging Face model card: scores as its model-index."""
    from leaderboard.show.export import model_card as front_matter

    deliver(front_matter(results, upstream), output)


@export_app.command(name="csv")
def csv_(
    results: Results = Path("results"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here.")] = None,
) -> None:
    """All results as tidy CSV: one row per result and metric."""
    from leaderboard.show.export import tidy_csv

    deliver(tidy_csv(results), output)
