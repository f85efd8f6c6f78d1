"""Tasks: one file each, with its card, its head and its own values of training.

Nothing here imports torch before a head is made, so that listing stays instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PROTOCOLS: Final = Path(__file__).parent / "protocols"

DOWNSTREAMS: Final[dict[str, str]] = {
    "asr": "downstreams.asr:Asr",
    "sid": "downstreams.sid:Sid",
    "ks": "downstreams.ks:Ks",
    "pr": "downstreams.pr:Pr",
    "ic": "downstreams.ic:Ic",
    "sf": "downstreams.sf:Sf",
    "er": "downstreams.er:Er",
    "asv": "downstreams.asv:Asv",
    "sd": "downstreams.sd:Sd",
    "qbe": "downstreams.qbe:Qbe",
}
"""Name → ``module:attribute``, as the entry points of a plug-in have it."""
