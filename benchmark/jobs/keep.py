"""Heads that are kept beside their results, for those who want answers and not only a score.

A head is written by the job that trains it, before the result is: a result that was made so has
its heads, whoever did the jobs and however often they were begun again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmark.answering.restored import restore
from benchmark.answering.saved import (
    HeadCard,
    Weights,
    head_path,
    read_card,
    read_weights,
    weights_path,
    write_heads,
)
from benchmark.answers import Keeps
from benchmark.core import Downstream, Prepares, TunesOnValid
from benchmark.encoding.forward import FrozenEncoder
from benchmark.encoding.packing import NONE
from benchmark.errors import SuperbError
from benchmark.jobs.plan import Fit
from benchmark.jobs.site import Cell, Encoder, Site, Task
from benchmark.probing.fit import Probe, SplitData, logits_of
from benchmark.probing.layers import Mix
from benchmark.progress import Progress
from benchmark.provenance import provenance
from benchmark.scoring.outcome import plain
from benchmark.scoring.results import Result, result_path

Chosen = Mapping[int, tuple[Probe, Downstream]]
"""Seed → the probe at the chosen rate, and what its answers on test were scored by."""

_COMPARED = 2


def require_heads(site: Site, found: Mapping[Cell, Result], progress: Progress) -> None:
    """Refuse, before any work, to keep heads that cannot be had.

    Args:
        site: what is asked for.
        found: results that are there already.
        progress: where to say that a task has no head.

    Raises:
        SuperbError: results were made without their heads, or a task keeps to itself what it
            learns beside its head.
    """
    for name, task in site.tasks.items():
        if not task.card.trained:
            progress.note(f"{name} trains no head, so none is kept of it")
        elif isinstance(task.scorer, Prepares | TunesOnValid) and not isinstance(
            task.scorer, Keeps
        ):
            raise SuperbError(
                f"--save-heads: task {name} learns something beside its head (prepared or tuned) "
                "and has no kept and with_kept that tell it; see docs/adding-a-task.md"
            )
    lacking = []
    for (encoder, name, _), result in found.items():
        task = site.tasks[name]
        path = result_path(site.output, name, site.encoders[encoder].card.name, result.run_id)
        if result.status == "finished" and task.card.trained:
            cards = [head_path(path, fold) for fold in task.partitions]
            if not all(card.is_file() and weights_path(card).is_file() for card in cards):
                lacking.append(str(path))
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise SuperbError(
            f"--save-heads: {len(lacking)} of these results were made before without it, and their "
            f"heads are gone: {', '.join(lacking[:3])}{more}. Delete these files to have the heads "
            "trained again, to the same scores; or choose another folder with --output DIR"
        )


def keep_heads(site: Site, job: Fit, layer: str, chosen: Chosen, test: SplitData) -> None:
    """Write the heads of one layer choice on one fold, and make sure that they answer alike.

    Args:
        site: what they were trained on.
        job: which encoder, task and fold.
        layer: the layer choice.
        chosen: heads; nothing is written where all learning rates failed.
        test: what they are tried on.

    Raises:
        SuperbError: they cannot be written, or do not answer as before once they are built again.
    """
    if not chosen:
        return
    encoder, task = site.encoders[job.encoder], site.tasks[job.task]
    cell = (job.encoder, job.task, layer)
    run_id = site.run_id(cell, job.storage)
    path = head_path(result_path(site.output, job.task, encoder.card.name, run_id), job.fold)
    mix = site.mixes(job.encoder, job.task)[layer]
    card = HeadCard(
        run_id=run_id,
        fold=job.fold,
        identity=plain(site.identity(cell, job.storage)),
        typed={"upstream": encoder.typed, "downstream": task.typed},
        upstream=plain(asdict(encoder.card)),
        encoder_sha256=encoder.weights_sha256,
        downstream=plain(asdict(task.card)),
        protocol=plain(task.protocol.record(task.training)),
        layer=layer,
        mix={"layer": mix.layer, "normalised": mix.normalised},
        learning_rate=next(iter(chosen.values()))[0].spec.learning_rate,
        seeds=list(chosen),
        kept={
            str(seed): plain(scorer.kept()) if isinstance(scorer, Keeps) else {}
            for seed, (_, scorer) in chosen.items()
        },
        vocabulary=list(task.partitions[job.fold].vocabulary),
        provenance=provenance(encoder.device),
    )
    write_heads(path, card, {s: Weights.of(p.mix, p.head) for s, (p, _) in chosen.items()})
    try:
        _require_alike(path, encoder, task, chosen, test, test.placed(mix))
    except SuperbError:
        for file in (path, weights_path(path)):
            with suppress(OSError):
                file.unlink()
        raise


def _require_alike(
    path: Path, encoder: Encoder, task: Task, chosen: Chosen, test: SplitData, placed: Mix
) -> None:
    """Build the heads again from their files, and compare what they give for a little of test."""
    card = read_card(path)
    for seed, (probe, scorer) in chosen.items():
        batch = test.batch(range(min(_COMPARED, len(test.utterances))), placed.normalised)
        states = batch.normalised if placed.normalised else batch.plain
        assert states is not None
        wanted = _given(probe.mix, probe.head, probe.half, scorer, states, batch, card)
        try:
            again = scorer.with_kept(card.kept[str(seed)]) if isinstance(scorer, Keeps) else scorer
            head = restore(
                FrozenEncoder(encoder.upstream, encoder.device),
                again,
                placed,
                read_weights(path, card, seed),
                vocabulary=card.vocabulary,
                settings=task.training.head,
                seed=seed,
                storage=NONE,
                half=probe.half,
                device=test.device,
            )
            alike = _given(head.mix, head.head, probe.half, again, states, batch, card) == wanted
        except (KeyError, RuntimeError, TypeError, ValueError):
            alike = False
        if not alike:
            raise SuperbError(
                f"--save-heads: a head of task {task.name} does not answer as it did once it is "
                "built again from its state_dict: all that it learns must be in parameters and "
                "buffers. The same command without --save-heads goes on to the score"
            )


def _given(
    mix: Any,  # noqa: ANN401 - modules
    head: Any,  # noqa: ANN401
    half: bool,
    task: Downstream,
    states: Any,  # noqa: ANN401
    batch: Any,  # noqa: ANN401
    card: HeadCard,
) -> list[Any]:
    """Logits as lists; of a head that gives something else, answers as text."""
    head.eval()
    with torch.inference_mode():
        logits, lengths = logits_of(mix, head, states, half)
        if isinstance(logits, torch.Tensor):
            return [logits.tolist(), lengths.tolist()]
        answers = task.answer(logits, lengths, batch.utterances, card.vocabulary)
        return [repr(answer) for answer in answers]
