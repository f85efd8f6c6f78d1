"""From a leaderboard to its site; the same files give the same bytes."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmark.errors import SuperbError
from leaderboard.read.collect import warn_left_out
from leaderboard.show.report import asset
from leaderboard.show.site.addresses import Encoder, pair_page, task_page
from leaderboard.show.site.content import Content, read_content
from leaderboard.show.site.downloads import write_downloads
from leaderboard.show.site.encoders import encoder_text
from leaderboard.show.site.feed import feed_text
from leaderboard.show.site.index import index_text
from leaderboard.show.site.layout import Place
from leaderboard.show.site.pairs import choose_pairs, compare_pairs, pair_text
from leaderboard.show.site.tasks import task_text
from leaderboard.submit import results_of

PAIRS: Final = 500
"""Most pages of two encoders that a site has, unless more are asked for."""

_MARK: Final = "assets/superb-site.txt"
"""Of a folder that holds a site and may be replaced."""


@dataclass(frozen=True)
class SiteOptions:
    """How a site is made.

    Attributes:
        title: of the leaderboard.
        url: where it will be, ending in a slash; "" for not known.
        pairs: most pages of two encoders.
    """

    title: str = "Frozen speech encoders compared"
    url: str = ""
    pairs: int = PAIRS


def write_site(
    leaderboard: Path | str, output: Path | str, options: SiteOptions | None = None
) -> tuple[Path, int]:
    """Write the site of a leaderboard, in place of an older one only when complete.

    Args:
        leaderboard: its folder, or any folder of results.
        output: a new or empty folder, or one with an older site.
        options: how.

    Returns:
        The first page, and how many pages there are.

    Raises:
        SuperbError: when there are no results, or the folder holds something else or cannot be
            written.
    """
    options = options or SiteOptions()
    if options.pairs < 0:
        raise SuperbError(f"the number of pages of pairs is at least 0; got {options.pairs}")
    if options.url and not options.url.startswith(("https://", "http://")):
        raise SuperbError(f"--url is where the site will be, https://…/; got {options.url}")
    if options.url and not options.url.endswith("/"):
        options = replace(options, url=f"{options.url}/")
    output = Path(output)
    _refuse_other(output)
    content = read_content(results_of(leaderboard))
    warn_left_out(content.board.problems)
    fresh = output.with_name(f".{output.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        fresh.mkdir(parents=True)
        try:
            pages = _write(content, fresh, options)
            _replace(fresh, output)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise SuperbError(
            f"the site {output} cannot be written: {error.strerror}. Choose a folder that you can "
            "write to with --output."
        ) from error
    return output / "index.html", pages


def _refuse_other(output: Path) -> None:
    """Only a site gives way to a site."""
    if not output.name:
        raise SuperbError(f"{output} is where you are; choose a folder of its own with --output")
    if not output.exists():
        return
    if not output.is_dir() or output.is_symlink():
        raise SuperbError(f"{output} is no folder; choose another with --output")
    if any(output.iterdir()) and not (output / _MARK).is_file():
        raise SuperbError(
            f"{output} holds other things than a site, which would be lost; choose a new folder "
            "with --output"
        )


def _replace(fresh: Path, output: Path) -> None:
    old = fresh.with_name(f"{fresh.name}.old")
    if output.exists():
        output.rename(old)
    fresh.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def _write(content: Content, folder: Path, options: SiteOptions) -> int:
    for name in ("assets", "downloads", "tasks", "encoders", "pairs"):
        (folder / name).mkdir()
    count = 0
    for page, text in _pages(content, options):
        (folder / page).write_text(text, encoding="utf-8", newline="\n")
        count += 1
    css = Path(__file__).with_name("site.css").read_text(encoding="utf-8")
    for name, text in {
        "assets/style.css": asset("style.css") + css,
        "assets/sort.js": asset("sort.js"),
        "feed.xml": feed_text(content, options.title, options.url),
        ".nojekyll": "",
        _MARK: "Made by superb site, which may replace this folder.\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    write_downloads(content, folder / "downloads")
    return count


def _pages(content: Content, options: SiteOptions) -> Iterator[tuple[str, str]]:
    """Address and text of every page."""
    tasks = tuple(content.tasks)
    wanted = choose_pairs(content, options.pairs)
    others: dict[Encoder, list[Encoder]] = {}
    for a, b in wanted:
        others.setdefault(a, []).append(b)
        others.setdefault(b, []).append(a)
    place = Place("index.html", tasks)
    yield place.page, index_text(content, place, options.title, _about_pairs(content, others))
    for task in tasks:
        place = Place(task_page(task), tasks)
        yield place.page, task_text(content, task, place)
    for encoder in content.encoders:
        place = Place(encoder.page, tasks)
        yield place.page, encoder_text(content, encoder, sorted(others.get(encoder, ())), place)
    for two, found in compare_pairs(content, wanted).items():
        place = Place(pair_page(*two), tasks)
        yield place.page, pair_text(two, found, place)


def _about_pairs(content: Content, others: dict[Encoder, list[Encoder]]) -> str:
    if len(others) == len(content.encoders) and all(
        len(own) == len(others) - 1 for own in others.values()
    ):
        return "The page of each leads to its comparisons with the others."
    return (
        "The best of each table have pages of comparisons, which their own pages lead to; any two "
        "others are compared by: superb compare A B results"
    )
