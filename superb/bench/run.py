"""How long a run would take here: two things are measured, and the rest is arithmetic.

Measured, on made-up audio and features as long as a corpus's mean utterance: seconds of audio per
second through the encoder, and an update of a task's head. Projected by the arithmetic of
``superb plan``: the time of all jobs of a run on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmark.encoding.recordings import estimate_s
from benchmark.jobs.cost import Speeds, disk_speed, encoder_speed
from benchmark.jobs.price import Price
from benchmark.jobs.site import Encoder
from benchmark.progress import Progress
from downstreams.corpora import BUNDLED, CORPORA
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream
from superb.bench.timing import Timing, take_turns
from superb.data import layout_of
from superb.plan import Case, Question, resolve

# The main job, and the tasks of SUPERB that want most: task, corpus, protocol.
RUNS: Final = (
    ("asr", BUNDLED, "mini"),
    ("asr", "librispeech", "superb"),
    ("sid", "voxceleb1", "superb"),
    ("ks", "speech-commands-v1", "superb"),
)


@dataclass(frozen=True)
class Projection:
    """One run on this machine.

    Attributes:
        upstream: the encoder.
        precision: of its arithmetic.
        task: what is learnt.
        corpus: of this size.
        protocol: the rules.
        hours: of audio, all splits.
        utterances: in them.
        encoder: seconds of the encoder for a second of audio; measured.
        update: seconds of an update of one probe; measured.
        price: of all jobs; projected.
    """

    upstream: str
    precision: str
    task: str
    corpus: str
    protocol: str
    hours: float
    utterances: int
    encoder: Timing
    update: Timing
    price: Price

    def seconds(self, job: str) -> float:
        """Of all jobs whose name begins like this."""
        return sum(
            line.jobs * line.each_s for line in self.price.lines if line.what.startswith(job)
        )


def corpus_size(name: str, task: str) -> tuple[float, int]:
    """Hours and utterances of a corpus by its own account, or of the bundled one as it is."""
    if name == BUNDLED:
        utterances = load_corpus(name, load_downstream(task).card).utterances
        return estimate_s(utterances) / 3600, len(utterances)
    layout = layout_of(name)
    splits = layout.defaults or tuple(layout.official)
    count = sum(layout.official[split].utterances for split in splits)
    return float(CORPORA[name].hours.split()[0]), count


def project_runs(
    encoder: Encoder,
    name: str,
    precision: str,
    cache_dir: Path,
    *,
    runs: Sequence[tuple[str, str, str]] = RUNS,
    rounds: int,
    progress: Progress,
) -> list[Projection]:
    """Measure what runs of an encoder rest on, and project them.

    Args:
        encoder: on its device.
        name: as it was typed.
        precision: of its arithmetic.
        cache_dir: the disk of this folder is timed.
        runs: task, corpus and protocol of each.
        rounds: timings of the encoder and of an update.
        progress: where to report.
    """
    disk = disk_speed(cache_dir)
    found = []
    for task, corpus, protocol in runs:
        hours, utterances = corpus_size(corpus, task)
        progress.note(f"{name}: {task} on {corpus}, {hours:.1f} h, in {precision}")
        question = Question(
            name,
            [task],
            hours,
            utterances,
            protocol=protocol,
            cache_dir=cache_dir,
            device=encoder.device,
            precision=precision,
        )
        case = resolve(question, progress, encoder)
        works = {"encoder": partial(_encoder_s, case), "update": partial(_update_s, case)}
        timings = take_turns(works, rounds, warm=True)
        measured = Speeds(1 / timings["encoder"].median, *disk)
        updates = {task: timings["update"].median}
        found.append(
            Projection(
                upstream=name,
                precision=precision,
                task=task,
                corpus=corpus,
                protocol=protocol,
                hours=hours,
                utterances=utterances,
                encoder=timings["encoder"],
                update=timings["update"],
                price=case.price(measured, updates, 1),
            )
        )
    return found


def _encoder_s(case: Case) -> float:
    return 1 / encoder_speed(case.encoder.upstream, case.noise(), case.settings)


def _update_s(case: Case) -> float:
    (seconds,) = case.updates().values()
    return seconds
