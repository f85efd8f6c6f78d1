"""New results as an Atom feed (RFC 4287), the newest first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree

from benchmark.scoring.results import Result
from leaderboard.read.fields import find_metric, metric_of, score_of
from leaderboard.read.names import printable
from leaderboard.show.numbers import score_text
from leaderboard.show.site.addresses import Encoder, run_link
from leaderboard.show.site.content import Content

_ATOM: Final = "http://www.w3.org/2005/Atom"
_MOST: Final = 50
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class New:
    """A result that is on the board, with its encoder."""

    result: Result
    encoder: Encoder

    @property
    def title(self) -> str:
        """What it is, and its score."""
        result, score = self.result, score_of(self.result)
        metric = find_metric(result, metric_of(result))
        told = "failed"
        if score is not None:
            told = f"{metric.name} {score_text(score, metric.unit)} {metric.unit}"
        return f"{self.encoder.label}, {result.downstream['name']}, {result.layer}: {told}"

    @property
    def moment(self) -> datetime:
        """When it was made; long ago where it does not say."""
        try:
            made = datetime.fromisoformat(self.result.created)
        except ValueError:
            return _LONG_AGO
        return made if made.tzinfo else made.replace(tzinfo=UTC)


def newest_runs(content: Content, most: int) -> list[New]:
    """Those on the board, the newest first."""
    found = [
        New(content.runs[cell.run_id].result, encoder)
        for encoder, rows in content.encoders.items()
        for _, row in rows
        for cell in row.cells.values()
    ]
    found.sort(key=lambda new: (new.moment, new.result.run_id), reverse=True)
    return found[:most]


def feed_text(content: Content, title: str, url: str) -> str:
    """The feed.

    Args:
        content: of the site.
        title: of the leaderboard.
        url: where the site will be, or "": links are then relative to the feed.
    """
    ElementTree.register_namespace("", _ATOM)
    root = ElementTree.Element(f"{{{_ATOM}}}feed")
    news = newest_runs(content, _MOST)

    def add(parent: ElementTree.Element, name: str, text: str = "", **values: str) -> None:
        child = ElementTree.SubElement(parent, f"{{{_ATOM}}}{name}", values)
        child.text = printable(text) or None

    add(root, "id", url or "urn:superb:leaderboard")
    add(root, "title", title)
    add(root, "updated", (news[0].moment if news else _LONG_AGO).isoformat())
    author = ElementTree.SubElement(root, f"{{{_ATOM}}}author")
    add(author, "name", "superb")
    add(root, "link", rel="self", href=f"{url}feed.xml")
    add(root, "link", href=f"{url}index.html")
    for new in news:
        entry = ElementTree.SubElement(root, f"{{{_ATOM}}}entry")
        add(entry, "id", f"urn:superb:run:{new.result.run_id}")
        add(entry, "title", new.title)
        add(entry, "updated", new.moment.isoformat())
        add(entry, "link", href=f"{url}{run_link(new.encoder, new.result.run_id)}")
        add(entry, "summary", f"{new.result.corpus['name']}, {new.result.protocol['name']}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
