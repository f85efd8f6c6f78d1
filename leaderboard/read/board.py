"""Tables of runs that may stand side by side, in no format yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.core import Metric
from benchmark.scoring.results import MetricValue, Status

# The two columns every table has, as the question is what the other layers add to the last.
MAIN_LAYERS = ("last", "weighted-sum")
BEST = "best"
"""The layer that is best on valid, for tasks that train no sum."""


@dataclass(frozen=True)
class Cell:
    """One run in a table.

    Attributes:
        status: ``finished`` or ``failed``.
        metrics: test scores by metric; empty when failed.
        score: the one by the metric that ranks; None when failed.
        seeds: how many seeds were trained; 0 where nothing is.
        over_reruns: whether its interval is over several seeds too, each a whole rerun.
        learning_rate: the one chosen.
        learning_rate_at_edge: True when the grid ends at it.
        not_separated: True for the best score of its column, and for each whose interval
            overlaps that of the best; never where a column has one score only.
        run_id: of the result file.
        fingerprint: of the encoder's weights and code; "" when the result does not say.
        created: UTC time of the run.
        lm_sha256: of the language model that transcripts were decoded with as well; "" for none.
    """

    status: Status
    metrics: Mapping[str, MetricValue]
    score: MetricValue | None
    seeds: int
    over_reruns: bool
    learning_rate: float | None
    learning_rate_at_edge: bool
    not_separated: bool
    run_id: str
    fingerprint: str
    created: str
    lm_sha256: str


@dataclass(frozen=True)
class Row:
    """One upstream in a table.

    Attributes:
        upstream: its name, as in the result.
        weights: hash of its weights and settings; of an encoder whose results do not tell it, its
            fingerprint, which code and libraries are part of.
        label: its name, with what tells it from other rows of that name: folders that its own is
            in, or the start of that hash, and in brackets how its features were computed and
            stored.
        source: where its weights are from; "" when the result does not say.
        precision: of the encoder's numbers; "" when the result does not say.
        storage: of the features; likewise.
        device: that computed them; likewise.
        untrained: True when its weights are random.
        note: the loud line of its card.
        family: the pretext school it comes from; "" when the result does not say.
        layers: hidden states, layer 0 among them; 0 when the result does not say.
        parameters: number of weights; None when the result does not say.
        macs: multiply-accumulate operations per second of audio; likewise.
        throughput: seconds of audio encoded per second on the machine of the newest run; likewise.
        trained_on: corpora heard in training, sorted; None when undisclosed.
        cells: by layer choice.
    """

    upstream: str
    weights: str
    label: str
    source: str
    precision: str
    storage: str
    device: str
    untrained: bool
    note: str
    family: str
    layers: int
    parameters: int | None
    macs: float | None
    throughput: float | None
    trained_on: tuple[str, ...] | None
    cells: Mapping[str, Cell]

    def cell(self, layer: str) -> Cell | None:
        """Its run of a layer choice; of a task that trains no sum, the best layer in its place."""
        found = self.cells.get(layer)
        return self.cells.get(BEST) if found is None and layer == MAIN_LAYERS[1] else found


@dataclass(frozen=True)
class Table:
    """What can be compared: one task on one corpus under one protocol.

    Attributes:
        downstream: name of the task.
        base: the task that this is a variant of; its own name if it is of none.
        labels: how much of train its heads were told the labels of; "" for all.
        train_s: the same in seconds, for all of it too; None when the result does not say.
        title: of the task, for readers.
        version: of the task.
        needs: the columns of a corpus that it reads, such as the labels of an intent.
        metrics: the one that ranks first.
        corpus: its name.
        corpus_sha256: its content, by names, sizes, labels and texts.
        audio_sha256: the content of its audio; "" when the result does not say.
        corpus_note: one line about it.
        skipped: ids of its utterances that every run left out, sorted.
        channel: the one that was heard; "" for the mean of all.
        protocol: its name.
        protocol_version: its version.
        protocol_sha256: its content; "" when the result does not say.
        engine: version of what trains, selects and scores; "" when the result does not say.
        layers: the columns.
        rows: best first.
        lexicon: hash of what words are found by, where a head has a lexicon; "" without.
    """

    downstream: str
    base: str
    labels: str
    train_s: float | None
    title: str
    version: int
    needs: tuple[str, ...]
    metrics: tuple[Metric, ...]
    corpus: str
    corpus_sha256: str
    audio_sha256: str
    corpus_note: str
    skipped: tuple[str, ...]
    channel: str
    protocol: str
    protocol_version: str
    protocol_sha256: str
    engine: str
    layers: tuple[str, ...]
    rows: tuple[Row, ...]
    lexicon: str = ""

    @property
    def head(self) -> str:
        """The task with its head: its name without the labels."""
        return self.downstream.removesuffix(f"-{self.labels}") if self.labels else self.downstream

    def stands_for(self, layer: str) -> str:
        """The column in the place of a layer choice: the best layer where no sum is trained."""
        return BEST if layer == MAIN_LAYERS[1] and BEST in self.layers else layer

    @property
    def metric(self) -> str:
        """Name of the metric that ranks."""
        return self.metrics[0].name

    @property
    def unit(self) -> str:
        """What it is counted in: ``%``, or a unit of the task's own."""
        return self.metrics[0].unit

    @property
    def lower_is_better(self) -> bool:
        """Its direction."""
        return self.metrics[0].direction == "lower"

    @property
    def cells(self) -> list[Cell]:
        """All its runs, row by row."""
        return [cell for row in self.rows for cell in row.cells.values()]

    @property
    def content(self) -> str:
        """What tells its corpus from another of the same name, in short."""
        parts = [self.corpus_sha256[:8]]
        parts += [f"audio {self.audio_sha256[:8]}"] * bool(self.audio_sha256)
        parts += [f"channel {self.channel}"] * bool(self.channel)
        return ", ".join(parts)


@dataclass(frozen=True)
class Board:
    """All tables of a folder.

    Attributes:
        tables: sorted by task, corpus and protocol.
        notes: what was decided on the way, e.g. which of two runs is shown.
        problems: files that were left out, and why.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
