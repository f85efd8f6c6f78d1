"""Minimise an objective: the loop, and all that makes it safe to kill.

An output folder holds the encoder once training is done (`upstreams.loading.pretrained`), and a
folder ``training`` with ``run.json`` (what was asked), ``checkpoint.pt`` (tensors and numbers
only), ``loss.csv``, ``loss.png`` and a log for tensorboard. The same command again goes on from the
checkpoint, to the same weights as if nothing had happened.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from benchmark.core import UpstreamCard
from benchmark.encoding.arithmetic import AUTO, PRECISIONS, faster_precision, seconds_of
from benchmark.errors import SuperbError, UpstreamError
from benchmark.identity import ADDED
from benchmark.progress import Bar, Progress
from upstreams.catalogue import UPSTREAMS
from upstreams.loading import pretrained
from upstreams.loading.files import read_json
from upstreams.loading.rows import CHECKPOINTS
from upstreams.models.batch import SAMPLE_RATE
from upstreams.pretraining import OBJECTIVES
from upstreams.pretraining.audio import Clip, Stream, hold_out, seconds
from upstreams.pretraining.folder import (
    Log,
    Row,
    first_line,
    replace,
    uninterrupted,
    write_history,
    writing,
)
from upstreams.pretraining.objective import Batch, Loss, Moment, Objective, Recipe
from upstreams.pretraining.run import (
    EVALUATIONS,
    TRAINING,
    Run,
    Settings,
    Source,
    clips_identity,
    objective_class,
    parse_settings,
    refuse,
    take_over,
    usable,
)
from upstreams.pretraining.siblings import differing, told_apart
from upstreams.pretraining.targets import teacher_names

# Of the clips, for the held-out loss.
HELD_OUT = 0.02
HELD_OUT_SECONDS = 240.0
# What an objective may look at before the first step.
SAMPLE_SECONDS = 3600.0
# How often steps are logged in a run.
LOGS = 500
CHECKPOINT_EVERY_S = 120.0
# Steps that are timed, and the share of the minutes after which no more are.
TIMED, TIMED_SHARE = 6, 0.1
# The share of the time that held-out losses may take.
LOOKS_SHARE = 0.2
ADAM_BETAS, ADAM_EPS = (0.9, 0.98), 1e-6
# accelerate is not typed.
Foreign: TypeAlias = Any
# Both a module and an `Objective`, which Python's types cannot say.
ObjectiveModule: TypeAlias = Any


def pretrain(
    objective: str,
    source: Source,
    output: Path,
    *,
    size: str = "mini",
    settings: Mapping[str, str] | None = None,
    recipe: Mapping[str, float] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    precision: str = AUTO,
    accumulate: int = 1,
    initial: str = "",
    device: str = "auto",
    command: str = "",
    began: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Pretrain an encoder, or go on with it.

    Started by ``accelerate launch`` it uses several devices or machines; batches are shared out.

    Args:
        objective: a name in `OBJECTIVES`.
        source: what to train on.
        output: folder to write; it must be empty, missing, or hold the same run.
        size: of the encoder: a key of the objective's ``sizes``.
        settings: the objective's, as text, where they are not to be the defaults.
        recipe: values of `Recipe` that are not to be the objective's.
        steps: of the optimiser; or
        minutes: that all of it may take, from which the steps are worked out by timing a few.
        seed: of everything random.
        precision: ``float32``, ``bfloat16`` (mixed: weights and losses stay in float32), or
            ``auto``: bfloat16 where the device multiplies matrices faster in it and a step is
            faster too.
        accumulate: batches per step.
        initial: folder or name of an encoder of the same architecture to start from.
        device: ``auto`` or ``cpu``.
        command: what was typed, for the card.
        began: when the minutes began (`time.monotonic`); now if None.
        progress: where to report.

    Returns:
        The output folder.

    Raises:
        SuperbError: an option is wrong, the audio is unusable, the loss is no number, or nothing
            can be written. What was trained until then is kept.
    """
    began = time.monotonic() if began is None else began
    report = progress or Progress(quiet=True)
    kind = objective_class(objective)
    chosen = parse_settings(kind.Settings, settings or {})
    asked_recipe = dataclasses.replace(kind.recipe, **recipe or {})
    refuse(size, kind, steps, minutes, precision, accumulate, device, seed, asked_recipe)
    clips = usable(source.clips, asked_recipe, report)
    asked = Run(
        objective=objective,
        size=size,
        settings=dataclasses.asdict(chosen),
        recipe=asked_recipe,
        seed=seed,
        steps=steps,
        minutes=minutes,
        precision=precision,
        accumulate=accumulate,
        initial=initial,
        audio=clips_identity(clips),
    )
    trainer = Trainer(kind, chosen, asked, clips, output, device, report, began)
    try:
        trainer.train()
        if trainer.main:
            pretrained.save(
                output,
                trainer.objective.architecture,
                trainer.objective.encoder,
                trainer.card(source, command),
            )
    except KeyboardInterrupt:
        if trainer.main:
            report.warn(trainer.interrupted())
        raise
    trainer.accelerator.wait_for_everyone()
    return output


class Trainer:
    """One run, from its checkpoint or its first step to its last."""

    def __init__(
        self,
        kind: type[Objective],
        settings: Settings,
        asked: Run,
        clips: Sequence[Clip],
        output: Path,
        device: str,
        report: Progress,
        began: float,
    ) -> None:
        self.report, self.folder, self.began = report, output / TRAINING, began
        self.recipe, self.seed = asked.recipe, asked.seed
        self.accelerator = _accelerator(asked, device)
        self.main = self.accelerator.is_main_process
        if not self.main:
            self.report = Progress(quiet=True)
        asked = dataclasses.replace(asked, processes=self.accelerator.num_processes)
        self.run = take_over(asked, output)
        train, self.held_out = hold_out(clips, HELD_OUT, self.seed)
        self.train_seconds = seconds(train)
        self.shortest = min(clips, key=lambda clip: clip.samples)
        share = self.recipe.batch_seconds / (self.run.accumulate * self.run.processes)
        self.stream = Stream(train, share, self.recipe.crop_seconds, self.seed)
        construct: type[ObjectiveModule] = kind
        self.objective: ObjectiveModule = construct(
            self.run.size, settings, torch.Generator().manual_seed(self.seed)
        )
        # Encoders whose knowledge goes into this one: what they were trained on, it was too.
        self.ancestors: list[UpstreamCard] = []
        if self.run.initial:
            self.ancestors.append(_start_from(self.objective, self.run.initial))
        self.ancestors += getattr(self.objective, "teachers", [])
        # Steps done, and of those the ones that the checkpoint on disk has done.
        self.step = self.kept = 0
        self.spent_s, self.history = 0.0, list[Row]()
        self.facts: dict[str, float] = {}
        optimizer = torch.optim.AdamW(
            _groups(self.objective, self.recipe), betas=ADAM_BETAS, eps=ADAM_EPS
        )
        self.model, self.optimizer = self.accelerator.prepare(self.objective, optimizer)

    def train(self) -> None:
        """Run to the last step; on any end before it, what was reached is kept."""
        self.objective.train(True)
        resumed = self._resume()
        self._require_same_step()
        if not resumed:
            self._try_shortest()
            self._prepare()
        if self.run.precision == AUTO:
            self.run = dataclasses.replace(self.run, precision=self._faster_precision())
        if self.run.steps is None:
            self.run = dataclasses.replace(self.run, steps=self._steps_left())
        steps = self.run.steps or 0
        if not resumed:
            self._write_run()
        if self.step >= steps:
            self.report.note(f"all {steps} steps are done")
            self._measure_last(steps)
            self._show()
            return
        self.report.note(
            f"{'going on with' if resumed else 'training'} {self.run.objective} from step "
            f"{self.step} to {steps}: {self.recipe.batch_seconds:g} s of audio per step, "
            f"{self.train_seconds / 3600:.2f} h of audio, {self._passes(steps):.1f} passes over it"
        )
        for line in differing(self.run, self.folder.parent):
            self.report.note(line)
        try:
            with (
                self._logs() as log,
                self.report.bar(self.run.objective, steps - self.step) as bar,
            ):
                self._loop(steps, bar, log)
        finally:
            if self.step and self._sound():
                self._save()

    def _measure_last(self, steps: int) -> None:
        """Measure the held-out loss of the last step where an interrupt came before it."""
        if not self.history or self.history[-1]["step"] < steps:
            self.history.append({"step": steps})
        if "held_out_loss" not in self.history[-1]:
            self.history[-1].update(self._evaluate(self._held_out_batches()))
            self._save()

    def interrupted(self) -> str:
        """What to tell who interrupted the run."""
        if not self.kept:
            return "interrupted before there was anything to keep; the same command starts again"
        return (
            f"interrupted; the checkpoint of step {self.kept} is kept in {self.folder}. Type the "
            "same command again to go on with it"
        )

    def _loop(self, steps: int, bar: Bar, log: Log) -> None:
        batches = self._batches(self.step)
        held_out = self._held_out_batches()
        log_every, evaluate_every = max(1, steps // LOGS), -(-steps // self.run.looks)
        saved = started = time.monotonic()
        audio_s, spent_before = 0.0, self.spent_s
        while self.step < steps:
            rate = self.recipe.learning_rate * schedule(self.step, steps, self.recipe.warm_up)
            loss, parts, heard_s = self._update(batches, self.step / steps, rate)
            audio_s += heard_s
            now = time.monotonic()
            self.spent_s = spent_before + now - started
            row: Row = {"step": self.step, "loss": loss, **parts, "learning_rate": rate}
            row["audio_per_second"] = audio_s / (now - started)
            evaluate = self.step % evaluate_every == 0 or self.step == steps
            if evaluate or self.step % log_every == 0 or self.step == 1:
                self.history.append(row)
                if evaluate:
                    row.update(self._evaluate(held_out))
                log.write(row)
            shown = ", ".join(f"{name} {value:.3g}" for name, value in parts.items())
            bar.rate(f"loss {loss:.4g}, {shown}, {row['audio_per_second']:.0f} s of audio per s")
            bar.advance()
            if now - saved > CHECKPOINT_EVERY_S:
                self._save()
                saved = now

    def _update(
        self, batches: Iterator[Batch], progress: float, rate: float
    ) -> tuple[float, Row, float]:
        """One step of the optimiser, counted: (loss, parts, seconds of audio)."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses: list[Loss] = []
        heard_s = 0.0
        for part in range(self.run.accumulate):
            batch = _moved(next(batches), self.accelerator.device)
            heard_s += batch.waveforms.numel() / SAMPLE_RATE
            with self.accelerator.accumulate(self.model):
                with self._autocast():
                    loss: Loss = self.model(batch, self._moment(progress, part))
                losses.append(loss)
                self._require_finite(loss.value)
                self.accelerator.backward(loss.value)
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(
                        self.model.parameters(), self.recipe.clip_norm
                    )
                    self._require_finite(norm)
                    # A checkpoint of half a step could not be gone on with to the same weights.
                    with uninterrupted():
                        self.optimizer.step()
                        self.step += 1
                    self.optimizer.zero_grad()
        value, parts = self._mean(losses)
        return value, parts, heard_s * self.run.processes

    def _mean(self, losses: Sequence[Loss]) -> tuple[float, Row]:
        """Over accumulated batches and processes."""
        names = list(losses[0].parts)
        numbers = torch.stack(
            [
                torch.stack([loss.value.detach().float(), *(loss.parts[n].float() for n in names)])
                for loss in losses
            ]
        ).mean(0)
        value, *parts = self.accelerator.reduce(numbers, "mean").tolist()
        return value, dict(zip(names, parts, strict=True))

    def _require_finite(self, number: Tensor) -> None:
        if not bool(torch.as_tensor(number).isfinite()):
            raise SuperbError(
                f"the loss or its gradient is no number at step {self.step}"
                + (f"; the checkpoint of that step is kept in {self.folder}" if self.step else "")
                + ". Start again in another --output, with a lower learning rate (it peaks at "
                f"{self.recipe.learning_rate:g})"
                + ("" if self.run.precision == "float32" else " or with --precision float32")
            )

    @torch.no_grad()
    def _evaluate(self, batches: Sequence[Batch]) -> Row:
        """Mean loss on held-out audio; the same crops, masks and negatives every time."""
        self.objective.train(False)
        losses = []
        for index, batch in enumerate(batches):
            generator = torch.Generator().manual_seed(index)
            with self._autocast():
                losses.append(
                    self.objective(_moved(batch, self.accelerator.device), Moment(1.0, generator))
                )
        self.objective.train(True)
        value, parts = self._mean(losses)
        return {
            "held_out_loss": value,
            **{f"held_out_{name}": part for name, part in parts.items()},
        }

    def _batches(self, step: int) -> Iterator[Batch]:
        processes = self.run.processes
        start = step * self.run.accumulate * processes + self.accelerator.process_index
        return self.stream.batches(start, processes)

    def _held_out_batches(self) -> list[Batch]:
        stream = Stream(
            self.held_out, self.recipe.batch_seconds / 2, self.recipe.crop_seconds, self.seed
        )
        batches, heard_s = [], 0.0
        for plan in stream.epoch(0):
            batches.append(stream.read(plan))
            heard_s += batches[-1].waveforms.numel() / SAMPLE_RATE
            if heard_s > HELD_OUT_SECONDS:
                break
        return batches

    def _moment(self, progress: float, part: int = 0) -> Moment:
        number = self.step * self.run.accumulate + part
        number = number * self.run.processes + self.accelerator.process_index
        return Moment(progress, self._generator(number))

    def _generator(self, number: int) -> torch.Generator:
        # Any mixing of the two numbers that keeps them apart.
        return torch.Generator().manual_seed(self.seed * 1_000_003 + number)

    def _require_same_step(self) -> None:
        """Refuse to go on from different steps, which end in waiting for each other for ever."""
        step = torch.tensor([self.step], device=self.accelerator.device)
        steps = self.accelerator.gather(step).unique().tolist()
        if len(steps) > 1:
            raise SuperbError(
                f"processes find checkpoints of different steps, {steps}: all of them must see the "
                f"same {self.folder}. Put --output on a disk that all machines share"
            )

    @torch.no_grad()
    def _try_shortest(self) -> None:
        """Refuse the shortest recording now if it is too short, and not in the middle of a run."""
        stream = Stream([self.shortest], 1.0, self.recipe.crop_seconds, self.seed)
        (plan,) = stream.epoch(0)
        needed = self.objective.architecture.min_samples
        if plan.samples < needed:
            raise SuperbError(
                f"min_seconds and crop_seconds must be at least {needed / SAMPLE_RATE:g}, what the "
                f"encoder needs for a frame; the shortest crop has {plan.samples / SAMPLE_RATE:g} s"
            )
        self.objective(_moved(stream.read(plan), self.accelerator.device), self._moment(0.0))

    def _prepare(self) -> None:
        """What the objective does before its first step; the same in all processes."""
        heard_s = 0.0

        def sample() -> Iterator[Batch]:
            nonlocal heard_s
            for plan in self.stream.epoch(0):
                if heard_s > SAMPLE_SECONDS:
                    return
                batch = self.stream.read(plan)
                heard_s += batch.waveforms.numel() / SAMPLE_RATE
                yield batch

        self.facts = self.objective.prepare(sample(), Moment(0.0, self._generator(0)))
        if self.facts:
            found = ", ".join(f"{name} {value:.3g}" for name, value in self.facts.items())
            self.report.note(f"prepared on {heard_s / 60:.0f} min of audio: {found}")

    def _autocast(self) -> torch.autocast:
        half = self.run.precision == "bfloat16"
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=half)

    def _faster_precision(self) -> str:
        """The arithmetic in which a step is faster; the same in all processes."""
        chosen, why = faster_precision(self.accelerator.device.type)
        # processes wait for each other in a step: all take some, or none
        if self._agreed(chosen == "bfloat16"):
            taken = {}
            for precision in reversed(PRECISIONS):
                self.run = dataclasses.replace(self.run, precision=precision)
                try:
                    taken[precision] = self._step_s()
                except torch.OutOfMemoryError:
                    taken[precision] = math.inf
            chosen = min(taken, key=lambda precision: taken[precision])
            why = ", ".join(f"{own:.2f} s a step in {name}" for name, own in taken.items())
        else:
            chosen = "float32"
        chosen = PRECISIONS[self._agreed(PRECISIONS.index(chosen))]
        self.report.note(f"precision {chosen}: {why}")
        return chosen

    def _step_s(self) -> float:
        """Seconds of a step, by some that are undone."""
        kept = copy.deepcopy((self.model.state_dict(), self.optimizer.state_dict()))
        batches, device = self._batches(0), self.accelerator.device.type
        most = 60 * TIMED_SHARE * (self.run.minutes or 5)
        taken: list[float] = []
        try:
            while self._agreed(len(taken) <= TIMED and math.fsum(taken) < most):
                taken.append(seconds_of(lambda: self._update(batches, 0.0, 0.0), device))
        finally:
            self.step = 0
            self.model.load_state_dict(kept[0])
            self.optimizer.load_state_dict(kept[1])
        # the first takes longer, but may be all there was time for
        return math.fsum(taken[1:]) / (len(taken) - 1) if taken[1:] else taken[0]

    def _steps_left(self) -> int:
        """How many steps fit into what is left of the minutes, with the held-out losses."""
        step_s = self._step_s()
        held_out, device = self._held_out_batches(), self.accelerator.device.type
        look_s = seconds_of(lambda: self._evaluate(held_out), device)
        minutes = self.run.minutes or 0
        left = 60 * minutes - (time.monotonic() - self.began)
        looks = min(EVALUATIONS, max(1, int(LOOKS_SHARE * left / look_s)))
        steps = self._agreed(int((left - looks * look_s) / step_s))
        if steps < 1:
            needed = (time.monotonic() - self.began + look_s + step_s) / 60
            raise SuperbError(
                f"--minutes {minutes:g} is too short: gathering audio, preparing and timing left "
                f"{max(left, 0):.0f} s, and a step with a look at held-out audio takes "
                f"{step_s + look_s:.0f} s. Type --minutes {math.ceil(2 * needed)}, or --steps 1"
            )
        self.run = dataclasses.replace(self.run, looks=self._agreed(looks))
        return steps

    def _agreed(self, number: float) -> int:
        """That of the first process, in all."""
        from accelerate.utils.operations import broadcast

        return int(broadcast(torch.tensor(int(number), device=self.accelerator.device)))

    def _passes(self, steps: int) -> float:
        return steps * self.recipe.batch_seconds / self.train_seconds

    def _sound(self) -> bool:
        return all(bool(weight.isfinite().all()) for weight in self.model.parameters())

    def _write_run(self) -> None:
        if not self.main:
            return
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(dataclasses.asdict(self.run), indent=1)
            replace(self.folder / "run.json", text.encode())

    def _save(self) -> None:
        """Write the checkpoint beside the last one, then put it in its place."""
        if not self.main:
            return
        state = {
            "step": self.step,
            "spent_s": self.spent_s,
            "facts": self.facts,
            "history": self.history,
            "objective": self.accelerator.unwrap_model(self.model).state_dict(),
            "encoder": {
                "family": OBJECTIVES[self.run.objective].school,
                **pretrained.described(self.objective.architecture),
            },
            "optimizer": self.optimizer.state_dict(),
        }
        path = self.folder / "checkpoint.pt"
        with writing(self.folder):
            temporary = path.with_suffix(".new")
            try:
                torch.save(state, temporary)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            self.kept = self.step
        self._show()

    def _show(self) -> None:
        """Write the losses for readers; a run that was killed just before this has yet to."""
        if self.main:
            with writing(self.folder):
                write_history(self.folder, self.history, self.run.objective)

    def _resume(self) -> bool:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self._require_same_body(state, path)
            self.accelerator.unwrap_model(self.model).load_state_dict(state["objective"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = self.kept = int(state["step"])
            self.spent_s = float(state["spent_s"])
            self.facts, self.history = state["facts"], state["history"]
        except (
            OSError,
            RuntimeError,
            LookupError,
            ValueError,
            TypeError,
            EOFError,
            UnpicklingError,
        ) as error:
            raise SuperbError(
                f"cannot go on from {path}: {first_line(error)}. Delete it to start again"
            ) from error
        return True

    def _require_same_body(self, state: Mapping[str, Any], path: Path) -> None:
        """Refuse weights of what a size was in an earlier version, which may fit a body of today.

        A checkpoint from before bodies were written down is one of fields that nobody had added.
        """
        body = self.objective.architecture
        if "encoder" in state:
            same = pretrained.architecture_from(state["encoder"], str(path)) == body
        else:
            same = all(
                getattr(body, own.name) == own.default
                for own in dataclasses.fields(body)
                if ADDED in own.metadata
            )
        if not same:
            raise SuperbError(
                f"{path} is of the body that --size {self.run.size} was in an earlier version. Go "
                "on with it by that version, or start again in another --output"
            )

    def _logs(self) -> Log:
        return Log(self.folder if self.main else None, self.step)

    def card(self, source: Source, command: str) -> dict[str, Any]:
        """What a reader of the encoder must know."""
        import platform

        entry = OBJECTIVES[self.run.objective]
        last = next((row for row in reversed(self.history) if "held_out_loss" in row), {})
        heard = _seconds_heard(self.run, self.recipe)
        often = (
            f"after {self.run.initial}"
            if heard is None
            else f"up to {heard / 3600:.1f} h with repetitions"
        )
        return {
            "family": entry.school,
            "licence": source.licence,
            "paper": entry.paper,
            "note": f"pretrained on {self.train_seconds / 3600:.1f} h of audio, {often}",
            "trained_on": _corpora(source.corpora, self.ancestors),
            "attribution": source.attribution,
            "command": command,
            "commands_before": _commands_before(self.run),
            "run": dataclasses.asdict(self.run),
            "audio": {
                "names": list(source.names),
                "hours": self.train_seconds / 3600,
                "passes": self._passes(self.run.steps or 0),
                "seconds_heard": heard,
            },
            "compute": {
                "minutes": self.spent_s / 60,
                "device": str(self.accelerator.device),
                "threads": torch.get_num_threads(),
                "machine": platform.processor() or platform.machine(),
                "torch": torch.__version__,
            },
            "parameters": sum(weight.numel() for weight in self.objective.encoder.parameters()),
            "prepared": self.facts,
            "held_out": {name: value for name, value in last.items() if name != "step"},
        }


def schedule(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak learning rate: a linear rise, then a linear fall to zero.

    Args:
        step: from 0 on.
        steps: in all.
        warm_up: share of the steps that rise.
    """
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return (step + 1) / rise
    return (steps - step) / max(1, steps - rise)


def _groups(objective: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and single vectors do not."""
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    return [
        {
            "params": [weight for weight in weights if weight.dim() > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [weight for weight in weights if weight.dim() <= 1], "weight_decay": 0.0},
    ]


def _moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(batch.waveforms.to(device), batch.speakers.to(device))


def _start_from(objective: ObjectiveModule, name: str) -> UpstreamCard:
    """Give an objective's encoder the weights of another one of the same architecture.

    Returns:
        The other one's card.
    """
    from upstreams.loading.load import load_upstream

    upstream = load_upstream(name)
    encoder = getattr(upstream, "encoder", None)
    config, own = getattr(encoder, "config", None), objective.architecture
    if config != own:
        what = f": {told_apart(config, own)}" if dataclasses.is_dataclass(config) else ""
        raise UpstreamError(
            f"--initial {name} is not of the architecture that is to be trained{what}. Name an "
            "encoder of that, or leave it out"
        )
    objective.encoder.load_state_dict(cast(nn.Module, encoder).state_dict())
    return upstream.card


def _accelerator(asked: Run, device: str) -> Foreign:
    """What places a run on its devices.

    Raises:
        SuperbError: the device cannot do the precision asked for.
    """
    from accelerate.accelerator import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    # It is made for one training per program: the next one may be on another device.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(
        cpu=device == "cpu", mixed_precision="no", gradient_accumulation_steps=asked.accumulate
    )
    if asked.precision == "bfloat16":
        try:
            with torch.autocast(accelerator.device.type, torch.bfloat16):
                pass
        except RuntimeError as error:
            raise SuperbError(
                f"this device cannot compute with --precision bfloat16: {first_line(error)}. "
                "Type --precision float32, or --device cpu"
            ) from error
    return accelerator


def _corpora(given: Sequence[str] | None, ancestors: Iterable[UpstreamCard]) -> list[str] | None:
    """All corpora that an encoder has heard, itself or in those it learns from; None: unknown."""
    corpora = None if given is None else list(dict.fromkeys(given))
    for card in ancestors:
        if corpora is None or card.trained_on is None:
            return None
        corpora += sorted(card.trained_on - set(corpora))
    return corpora


def _seconds_heard(run: Run, recipe: Recipe) -> float | None:
    """Audio that went through an encoder, at most, also before a run; None: that is not known.

    Clips of a batch are cut to the shortest of them, so some per cent less of it is heard.
    """
    own = (run.steps or 0) * recipe.batch_seconds
    if not run.initial or run.initial.strip().startswith("untrained:"):
        return own
    audio = _card_file(run.initial).get("audio")
    before = audio.get("seconds_heard") if isinstance(audio, dict) else None
    # Another one's card may say anything.
    if type(before) not in (int, float) or not 0 <= cast(float, before) < 1e12:
        return None
    return float(cast(float, before)) + own


def _commands_before(run: Run) -> list[str]:
    """The commands that made the encoders that a run started from or learned from."""
    commands: list[str] = []
    taught = teacher_names(str(run.settings.get("teacher", "")))
    for name in dict.fromkeys((run.initial, *taught)):
        content = _card_file(name)
        before = content.get("commands_before")
        listed = [*(before if isinstance(before, list) else []), content.get("command")]
        commands += [command for command in listed if isinstance(command, str)]
    return list(dict.fromkeys(commands))


def _card_file(name: str) -> dict[str, Any]:
    """The card of an encoder that was trained here, a folder or bundled; empty: it has none."""
    name = name.strip()
    entry = UPSTREAMS.get(name)
    bundled = entry is not None and entry.checkpoint == "bundled"
    folder = CHECKPOINTS / name if bundled else Path(name).expanduser()
    return read_json(folder, "card.json") if name and (folder / "card.json").is_file() else {}
