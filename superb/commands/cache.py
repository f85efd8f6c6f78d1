"""``superb cache``: stored features, listed or cleared."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from superb.commands.options import CacheDir

cache_app = typer.Typer(help="List or clear stored features.", invoke_without_command=True)


@cache_app.callback()
def cache(context: typer.Context, cache_dir: CacheDir = None) -> None:
    """List stored features, biggest first, and the states of trainings that were cut off."""
    if context.invoked_subcommand is not None:
        return
    from datetime import datetime

    from benchmark.encoding.cache import PREPARED, TRAINING, cache_folder, format_bytes, list_stores

    root = cache_dir or cache_folder()
    stores = list_stores(root)
    table = Table("key", "upstream", "kind", "storage", box=SIMPLE_HEAD)
    for column in ("utterances", "size", "last written"):
        table.add_column(column, justify="right")
    for store in stores:
        table.add_row(
            store.key[:12],
            escape(store.upstream),
            store.kind,
            store.storage,
            "–" if store.key in (TRAINING, PREPARED) else str(store.utterances),
            format_bytes(store.size),
            f"{datetime.fromtimestamp(store.used):%Y-%m-%d %H:%M}",
        )
    total = format_bytes(sum(store.size for store in stores))
    table.caption = f"{total} in {root}"
    table.caption_justify = "left"
    Console(emoji=False).print(table)


@cache_app.command()
def clear(
    selection: Annotated[
        list[str] | None,
        typer.Argument(help="Keys, upstream names, or training; everything if none."),
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Delete stored features and states of training; scores are kept, the rest can be remade."""
    from benchmark.encoding.cache import cache_folder, clear_stores, format_bytes

    cleared = clear_stores(cache_dir or cache_folder(), selection or ())
    size = format_bytes(sum(store.size for store in cleared))
    print(f"cleared {len(cleared)} store{'' if len(cleared) == 1 else 's'}, {size}")
