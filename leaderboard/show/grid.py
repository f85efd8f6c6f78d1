"""One table of text, before any format."""

from __future__ import annotations

from dataclasses import dataclass

MISSING = "–"
CLOSE = "*"  # beside bold, for those who do not see it


@dataclass(frozen=True)
class Item:
    """One cell of a grid.

    Attributes:
        text: as it is, in no format.
        marks: characters of footnotes.
        bold: True for the best of its column and all that ties with it.
    """

    text: str
    marks: str = ""
    bold: bool = False


@dataclass(frozen=True)
class GridRow:
    """One row: what names it, and its cells."""

    labels: tuple[str, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Grid:
    """One table of text.

    Attributes:
        title: its heading.
        details: lines below the heading.
        labels: headings of the columns that name a row.
        columns: headings of the others.
        groups: what neighbouring columns have in common; "" for nothing.
        rows: in order.
        bold: what bold means; "" when nothing is.
        footnotes: what the marks mean.
    """

    title: str
    details: tuple[str, ...]
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    groups: tuple[str, ...]
    rows: tuple[GridRow, ...]
    bold: str
    footnotes: tuple[str, ...]

    def notes(self, bold: str = "Bold") -> list[str]:
        """What bold means, said with this word, and the footnotes."""
        return [*([f"{bold}: {self.bold}"] if self.bold else []), *self.footnotes]

    def heading(self, column: int) -> str:
        """Group and heading of a column in one."""
        return " ".join(part for part in (self.groups[column], self.columns[column]) if part)
