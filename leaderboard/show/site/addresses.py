"""Where the pages of a site are: stable, and the same whatever strangers call their encoders."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

_LETTERS: Final = 40  # of a name in an address, which a hash follows


@dataclass(frozen=True, order=True)
class Encoder:
    """One encoder, whatever its features were computed with.

    Attributes:
        name: of it.
        weights: as in `leaderboard.read.board.Row`.
        label: its name, with what tells it from others of that name.
    """

    name: str
    weights: str
    label: str

    @property
    def digest(self) -> str:
        """What stands for it in addresses."""
        return _digest(self.name, self.weights)

    @property
    def page(self) -> str:
        """Of it; from the root of the site."""
        return f"encoders/{_slug(self.name)}-{self.digest}.html"


def task_page(downstream: str) -> str:
    """Of a task; from the root of the site."""
    slug = _slug(downstream)
    return f"tasks/{slug if slug == downstream else f'{slug}-{_digest(downstream)}'}.html"


def pair_page(a: Encoder, b: Encoder) -> str:
    """Of two encoders in either order; from the root of the site."""
    return f"pairs/{'-'.join(sorted((a.digest, b.digest)))}.html"


def anchor(run_id: str) -> str:
    """The id of what a page says of a run, for ever."""
    return f"run-{run_id}"


def run_link(encoder: Encoder, run_id: str) -> str:
    """The permalink of a result; from the root of the site."""
    return f"{encoder.page}#{quote(anchor(run_id))}"


def _slug(name: str) -> str:
    """Letters, digits and hyphens, in lower case as not all disks tell cases apart.

    >>> _slug("hf:Org/../Model"), _slug("語")
    ('hf-org-model', 'x')
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LETTERS].strip("-") or "x"


def _digest(*parts: str) -> str:
    text = "\0".join(parts).encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:12]
