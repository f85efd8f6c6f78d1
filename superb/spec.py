"""A run as a value: what can be said of one, under the names that options and files have for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core import SPLITS, Downstream, Upstream
from downstreams.corpora import CorpusOptions

if TYPE_CHECKING:
    from benchmark.protocol import Protocol


@dataclass(frozen=True)
class RunFile:
    """Where a run is written down.

    Attributes:
        name: of the file.
        sha256: of its bytes.
        place: the table of it that this is, for messages.
    """

    name: str
    sha256: str
    place: str

    @property
    def record(self) -> Mapping[str, str]:
        """What results say of it."""
        return {"name": self.name, "sha256": self.sha256}


@dataclass(frozen=True)
class RunSpec:
    """A run as it is asked for; `superb.run` says what each value means.

    Options of the command line, arguments of `superb.run` and keys of run files have these names,
    types and defaults.
    """

    upstream: tuple[str | Upstream, ...]
    downstream: tuple[str | Downstream, ...]
    corpus: str | object = "mini"
    data_root: Path | None = None
    train_split: str | None = None
    valid_split: str | None = None
    test_split: str | None = None
    protocol: str | Protocol = "mini"
    layers: tuple[str, ...] = ("last", "weighted-sum")
    seeds: int = 1
    output: Path = Path("results")
    cache_dir: Path | None = None
    device: str = "auto"
    precision: str = "float32"
    storage: str = "auto"
    on_bad_audio: str = "fail"
    channel: int | None = None
    trust_remote_code: bool = False
    lm: Path | None = None
    lexicon: Path | None = None
    pronunciations: Path | None = None
    slots: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    trials: Path | None = None
    settings: tuple[str, ...] = ()
    checkpoint: Path | None = None
    track: tuple[str, ...] = ()
    log_dir: Path | None = None
    save_heads: bool = False
    workers: int = 1
    cluster: str | None = None
    file: RunFile | None = None

    @property
    def options(self) -> CorpusOptions:
        """Where the corpus lies, and how it is read."""
        own = {split: getattr(self, f"{split}_split") for split in SPLITS}
        splits = {split: name for split, name in own.items() if name is not None}
        return CorpusOptions(self.data_root, splits, self.pronunciations)


OPTIONS = {field.name: field for field in fields(RunSpec) if field.name != "file"}
"""What can be said of a run, by name."""
