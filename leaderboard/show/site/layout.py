"""What all pages of a site share: head, navigation, and links from one page to another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from leaderboard.show.report.markup import Html, element, join
from leaderboard.show.site.addresses import task_page


@dataclass(frozen=True)
class Place:
    """A page that is being written: links are relative, so that a site opens anywhere.

    Attributes:
        page: its address from the root of the site.
        tasks: names of all tasks, for the navigation.
    """

    page: str
    tasks: tuple[str, ...]

    def to(self, address: str) -> str:
        """The link to an address from the root."""
        return "../" * self.page.count("/") + address

    def link(self, text: str, address: str) -> Html:
        """A link to it."""
        return element("a", text, href=self.to(address))

    def write(self, title: str, main: Iterable[Html | None], lead: str = "") -> str:
        """The whole page.

        Args:
            title: of it, also its heading.
            main: what it holds.
            lead: one line below the heading.
        """
        return _template().substitute(
            style=self.to("assets/style.css"),
            sort=self.to("assets/sort.js"),
            feed=self.to("feed.xml"),
            title=join(title),
            navigation=self._navigation(),
            lead=element("p", lead) if lead else "",
            main=join(*main),
        )

    def _navigation(self) -> Html:
        entries = [("All tasks", "index.html")]
        entries += [(name, task_page(name)) for name in self.tasks]
        return join(
            *(
                element(
                    "li",
                    element(
                        "a",
                        text,
                        href=self.to(address),
                        aria_current="page" if address == self.page else None,
                    ),
                )
                for text, address in entries
            )
        )


@cache
def _template() -> Template:
    return Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def facts_list(facts: Iterable[tuple[str, str | Html | None]]) -> Html:
    """Names with what is said of each; nothing is said of what is empty."""
    pairs = [(name, text) for name, text in facts if text]
    return element(
        "dl",
        *(join(element("dt", name), element("dd", text)) for name, text in pairs),
    )
