"""Faults of manifests, transcripts and labels."""

from __future__ import annotations

from pathlib import Path

from tests.faults.case import fault, manifest, record, refused, rows, run


@fault("one class in all of train", "refused: nothing to tell apart")
def one_class(folder: Path) -> None:
    own = [row | {"label": "yes"} for row in rows()]
    record(folder, own)
    refused(run(folder, manifest(folder, own)), "'yes'", "nothing to tell apart")
