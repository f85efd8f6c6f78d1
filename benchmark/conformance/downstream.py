"""The contract of a task as a list of checks, on random features and made-up utterances."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from benchmark.conformance.report import (
    BrokenError,
    Check,
    NotApplicableError,
    disturb_random_state,
    hold,
    random_state_restored,
    run_checks,
    state_kept,
)
from benchmark.core import DownstreamCard, GivesExamples, Record, Utterance, at_hop
from benchmark.errors import SuperbError
from benchmark.metrics import check_record, find_statistic, score
from benchmark.protocol import Protocol, Training

# Allowed change by company in a batch, relative to the norm: float32 rounding is near 1e-6.
TOLERANCE: Final = 1e-4
# The same for a head on frames and on their mean, where only the order of sums differs.
TOLERANCE_MEAN: Final = 1e-5
# Utterances that heads are tried on, updates in which the loss must fall.
BATCH: Final = 10
UPDATES: Final = 20
# Features and hop of an encoder that does not exist.
DIM: Final = 24
HOP_S: Final = 0.02

# Name -> what the contract asks for, in the order of the report.
EXPECTED: Final = {
    "card": "an attribute `card` that is a DownstreamCard whose metrics have known statistics",
    "training": "an attribute `training`, a mapping; laid over each bundled protocol it gives "
    "values of training",
    "vocabulary": "vocabulary(train) is a tuple of different texts, the same in whatever order "
    "train comes",
    "head": "head(dim, hop_s, outputs, settings, generator) is a torch module from frames "
    "[utterance, frame, dim] and lengths to float logits [utterance, outputs] or, if "
    "card.features is frames, [utterance, frame, outputs], and integer lengths",
    "loss": "loss(logits, lengths, utterances, vocabulary) is a finite scalar with a gradient",
    "answer": "answer(logits, lengths, utterances, vocabulary) has one answer per utterance, the "
    "same when asked again",
    "records": "records(utterances, answers) are Records with different ids and, for each metric "
    "of the card, as many finite numbers as its statistic reads; their score is finite",
    "one-frame": "finite logits for an utterance of one frame",
    "padding": "the same logits, lengths and answer alone and beside longer utterances",
    "time-mean": "if card.features is mean, the same logits for frames and for their mean",
    "loss-mean": "the loss of a batch is the mean of the losses of its utterances (or of their "
    "frames)",
    "records-add": "the records of two halves are those of the whole, if each utterance has one",
    "gradients": "the gradient of the loss reaches every weight",
    "seeds": "weights and dropout are the same for the same seed, and others for another",
    "random-state": "the global generators of torch, numpy and random are left alone",
    "inputs": "features, lengths, logits and answers passed in are not modified",
    "learning": f"{UPDATES} updates on {BATCH} utterances lower their loss",
}

# Those that are asked of heads, which a task that trains nothing does not have.
_OF_HEADS: Final = (
    *("vocabulary", "head", "loss", "one-frame", "padding", "time-mean", "loss-mean"),
    *("gradients", "seeds", "inputs", "learning"),
)


def check_downstream(
    task: object,
    *,
    protocols: Sequence[Protocol],
    utterances: Sequence[Utterance] | None = None,
) -> list[Check]:
    """Check one task against the whole contract.

    Features are seeded noise, so no audio is read. The global random state is as before afterwards.

    Args:
        task: any object; it need not be registered.
        protocols: its training is laid over each; the first decides the head that is tried.
        utterances: a train split to take utterances from; None makes some up from what the card
            needs. A task that reads meaning in a column gives an ``example`` of it.

    Returns:
        One `Check` per entry of `EXPECTED`, in that order.
    """
    with random_state_restored():
        return _Suite(task, protocols, utterances).run()


def made_up_utterances(
    card: DownstreamCard, count: int = 12, task: object = None
) -> list[Utterance]:
    """Utterances without audio that have what a task needs: three labels, four speakers."""
    words = ["one", "two", "three", "four", "five", "six"]
    made = []
    for index in range(count):
        known = {
            "speaker": f"speaker-{index % 4}",
            "text": " ".join(words[(index + place) % 6] for place in range(1 + index % 4)),
            "label": f"label-{index % 3}",
        }
        columns = {
            column: f"{column}-{index % 3}" for column in card.columns if column not in known
        }
        if isinstance(task, GivesExamples):
            columns |= task.example(index, 1.0 + index % 3)
        known["label"] = (known | columns)[card.label_from if card.labelled else "label"]
        made.append(
            Utterance(
                f"u{index}",
                b"",
                "train",
                speaker=known["speaker"],
                text=known["text"],
                label=known["label"],
                columns=columns,
            )
        )
    return made


class _Suite:
    """The checks of one task: a method each, which returns what it found or raises."""

    def __init__(
        self, task: object, protocols: Sequence[Protocol], utterances: Sequence[Utterance] | None
    ) -> None:
        self.task: Any = task
        self.protocols = protocols
        self.given = None if utterances is None else list(utterances)
        self.card: DownstreamCard
        self.training: Training
        self.train: list[Utterance]
        self.vocabulary: tuple[str, ...]

    def run(self) -> list[Check]:
        """Run everything, in order."""
        tests: dict[str, Callable[[], str]] = {
            "card": self.has_card,
            "training": self.has_training,
            "vocabulary": self.has_vocabulary,
            "head": self.has_head,
            "loss": self.has_loss,
            "answer": self.has_answers,
            "records": self.has_records,
            "one-frame": self.one_frame,
            "padding": self.padding,
            "time-mean": self.time_mean,
            "loss-mean": self.loss_mean,
            "records-add": self.records_add,
            "gradients": self.gradients,
            "seeds": self.seeds,
            "random-state": lambda: state_kept(self._everything),
            "inputs": self.inputs,
            "learning": self.learning,
        }
        if not getattr(getattr(self.task, "card", None), "trained", True):
            tests |= dict.fromkeys(_OF_HEADS, self.has_no_head)
        basics = list(EXPECTED)[:7]
        return run_checks(EXPECTED, tests, basics)

    # What the tests share.

    def has_no_head(self) -> str:
        raise NotApplicableError("the card says that nothing is trained")

    @property
    def batch(self) -> list[Utterance]:
        """Utterances that heads are tried on: neighbours, often of one speaker, all over train.

        A search is tried on all: a part of them may hold nothing that is asked for.
        """
        if not self.card.trained:
            return self.train
        step = max(2, 2 * len(self.train) // BATCH)
        return [u for place, u in enumerate(self.train) if place % step < 2][:BATCH]

    def features(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Seeded frames ``[frame, dim]`` of each, long enough for what is said in it."""
        made = []
        for index, utterance in enumerate(utterances):
            generator = torch.Generator().manual_seed(index)
            frames = 40 + 13 * (index % 4) + 6 * len(utterance.text)
            level = torch.randn(DIM, generator=generator)  # as different as recordings are
            made.append(torch.randn(frames, DIM, generator=generator) + level)
        return made

    def build(self, seed: int = 0) -> nn.Module:
        """A head as the engine makes it."""
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = self.task.head(DIM, HOP_S, len(self.vocabulary), self.training.head, generator)
        if not isinstance(head, nn.Module):
            raise BrokenError(f"a {type(head).__name__}, not a torch.nn.Module")
        return head

    def forward(self, head: nn.Module, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits and lengths of a batch padded with zeros, as the engine pads."""
        lengths = torch.tensor([len(frames) for frames in features])
        logits, shorter = head(pad_sequence(list(features), batch_first=True), lengths)
        return logits, shorter

    def tried(self) -> tuple[Tensor, Tensor]:
        """Logits and lengths of the batch, from a fresh head in evaluation mode."""
        with torch.no_grad():
            return self.forward(self.build().eval(), self.features(self.batch))

    def loss(self, logits: Tensor, lengths: Tensor, utterances: Sequence[Utterance]) -> Tensor:
        loss: Tensor = self.task.loss(logits, lengths, utterances, self.vocabulary)
        return loss

    def answers(
        self, logits: Tensor, lengths: Tensor, utterances: Sequence[Utterance]
    ) -> list[Any]:
        with torch.no_grad():
            return list(self.task.answer(logits, lengths, utterances, self.vocabulary))

    # The checks.

    def has_card(self) -> str:
        card = getattr(self.task, "card", None)
        if not isinstance(card, DownstreamCard):
            if isinstance(self.task, type):
                raise BrokenError(f"a class; pass an object, {self.task.__name__}()")
            raise BrokenError("no attribute `card`" if card is None else f"a {type(card).__name__}")
        for metric in card.metrics:
            try:
                find_statistic(metric.statistic)
            except SuperbError as error:
                raise BrokenError(f"metric {metric.name}: {error}") from error
        self.card = card
        self.task = at_hop(self.task, HOP_S)
        given = self.given
        self.train = made_up_utterances(card, task=self.task) if given is None else given
        if not self.train:
            raise BrokenError("no utterances to try it on")
        return f"card of {card.name!r}, version {card.version}"

    def has_training(self) -> str:
        own = getattr(self.task, "training", None)
        if not isinstance(own, Mapping):
            raise BrokenError("no attribute `training`" if own is None else f"{own!r:.60}")
        values = []
        for protocol in self.protocols:
            try:
                values.append(
                    protocol.training(self.card.name, self.card.features, own, self.card.base)
                )
            except SuperbError as error:
                raise BrokenError(str(error)) from error
        self.training = values[0]
        names = ", ".join(protocol.name for protocol in self.protocols)
        return f"head settings {', '.join(self.training.head) or 'none'}; laid over {names}"

    def has_vocabulary(self) -> str:
        before = list(self.train)
        found = self.task.vocabulary(self.train)
        if not isinstance(found, tuple) or not all(isinstance(symbol, str) for symbol in found):
            raise BrokenError(f"{found!r:.60}")
        if not found:
            raise BrokenError("no outputs at all")
        if len(set(found)) < len(found):
            raise BrokenError(f"{len(found)} outputs, of which {len(set(found))} are different")
        if self.train != before:
            raise BrokenError("the list of utterances passed in was changed")
        order = torch.randperm(len(before), generator=torch.Generator().manual_seed(0)).tolist()
        for other in (before[::-1], [before[index] for index in order]):
            if self.task.vocabulary(other) != found:
                raise BrokenError("other outputs, or in other places, for train in another order")
        self.vocabulary = found
        return f"{len(found)} outputs from {len(before)} utterances"

    def has_head(self) -> str:
        head = self.build().eval()
        logits, lengths = _pair(head, self.features(self.batch))
        count = len(self.batch)
        if not isinstance(logits, Tensor):
            self.answers(logits, lengths, self.batch)
            return f"no logits, but a {type(logits).__name__} that the task reads"
        outputs = len(self.vocabulary) + getattr(head, "extra_outputs", 0)
        shape = tuple(logits.shape)
        found = f"logits {shape} for {count} utterances and {outputs} outputs"
        framed = len(shape) == 3 and self.card.features == "frames"
        if not (framed or len(shape) == 2) or shape[0] != count or shape[-1] != outputs:
            raise BrokenError(found)
        if not logits.is_floating_point():
            raise BrokenError(f"logits of type {logits.dtype}")
        if lengths.is_floating_point() or tuple(lengths.shape) != (count,):
            raise BrokenError(f"lengths {tuple(lengths.shape)} of type {lengths.dtype}")
        if framed and not (lengths.min() >= 1 and lengths.max() <= shape[1]):
            raise BrokenError(f"{found}, lengths from {lengths.min()} to {lengths.max()}")
        return found

    def has_loss(self) -> str:
        logits, lengths = self.tried()
        if isinstance(logits, Tensor):
            logits.requires_grad_()
        else:
            logits, lengths = self.forward(self.build().eval(), self.features(self.batch))
        loss = self.loss(logits, lengths, self.batch)
        if not isinstance(loss, Tensor) or loss.dim():
            raise BrokenError(
                f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r:.60}"
            )
        if not math.isfinite(float(loss.detach())):
            raise BrokenError(f"{float(loss.detach())}")
        return hold(
            loss.requires_grad,
            f"{float(loss.detach()):.4g}" + " detached" * (not loss.requires_grad),
        )

    def has_answers(self) -> str:
        answers = self._asked(self.batch)
        if len(answers) != len(self.batch):
            raise BrokenError(f"{len(answers)} answers for {len(self.batch)} utterances")
        again = self._asked(self.batch)
        return hold(
            _alike(answers, again),
            f"{len(answers)} answers, the first {answers[0]!r:.40}"
            if _alike(answers, again)
            else "other answers when asked again",
        )

    def has_records(self) -> str:
        records = self._records(self.batch)
        if not records:
            raise BrokenError("no records at all")
        names = [metric.name for metric in self.card.metrics]
        for record in records:
            try:
                check_record(record, self.card.metrics)
            except ValueError as error:
                raise BrokenError(str(error)) from error
        if len({record.id for record in records}) < len(records):
            raise BrokenError(f"{len(records)} records with ids that occur twice")
        scores = {metric.name: score(records, metric) for metric in self.card.metrics}
        shown = ", ".join(f"{name} {scores[name]:.4g}" for name in names)
        return hold(all(map(math.isfinite, scores.values())), f"{len(records)} records: {shown}")

    def one_frame(self) -> str:
        with torch.no_grad():
            logits, lengths = self.forward(self.build().eval(), [self.features(self.batch)[0][:1]])
            if not isinstance(logits, Tensor):
                loss = float(self.loss(logits, lengths, self.batch[:1]))
                return hold(math.isfinite(loss), f"a loss of {loss:.4g}, {lengths}")
        finite = bool(torch.isfinite(logits).all())
        return hold(
            finite, f"{'' if finite else 'NaN or infinite '}logits {tuple(logits.shape)}, {lengths}"
        )

    def padding(self) -> str:
        head, features = self.build().eval(), self.features(self.batch)
        worst = 0.0
        with torch.no_grad():
            logits, lengths = self.forward(head, features)
            answers = self.answers(logits, lengths, self.batch)
            for index, utterance in enumerate(self.batch):
                alone, length = self.forward(head, [features[index]])
                if length[0] != lengths[index]:
                    raise BrokenError(f"{length[0]} frames alone, {lengths[index]} in a batch")
                if isinstance(logits, Tensor):
                    own, single = logits[index], alone
                    if logits.dim() == 3:
                        own, single = own[: length[0]], alone[:, : length[0]]
                    worst = max(worst, _change(single[0], own))
                if worst > TOLERANCE:
                    raise BrokenError(f"relative change {worst:.2g} (allowed {TOLERANCE:g})")
                (answer,) = self.answers(alone, length, [utterance])
                if not _alike(answer, answers[index]):
                    raise BrokenError(
                        f"answer {answer!r:.40} alone, {answers[index]!r:.40} in a batch"
                    )
        return f"relative change {worst:.2g} (allowed {TOLERANCE:g})"

    def time_mean(self) -> str:
        if self.card.features != "mean":
            raise NotApplicableError("card.features is frames")
        head, features = self.build().eval(), self.features(self.batch)
        with torch.no_grad():
            framed, _ = self.forward(head, features)
            pooled, _ = self.forward(head, [frames.mean(0, keepdim=True) for frames in features])
        change = _change(framed, pooled)
        return hold(
            change <= TOLERANCE_MEAN,
            f"relative change {change:.2g} (allowed {TOLERANCE_MEAN:g})"
            + "; nothing may be nonlinear before the mean over time, or card.features is frames"
            * (change > TOLERANCE_MEAN),
        )

    def loss_mean(self) -> str:
        head, features = self.build().eval(), self.features(self.batch)
        with torch.no_grad():
            logits, lengths = self.forward(head, features)
            together = float(self.loss(logits, lengths, self.batch))
            each = [
                float(self.loss(*self.forward(head, [own]), [utterance]))
                for own, utterance in zip(features, self.batch, strict=True)
            ]
        mean = sum(each) / len(each)
        if _near(together, mean):
            return f"the mean over utterances, {together:.6g}"
        weights = lengths.tolist()
        framed = sum(w * loss for w, loss in zip(weights, each, strict=True)) / sum(weights)
        if _near(together, framed):
            return f"the mean over frames, {together:.6g}: longer utterances count for more"
        raise BrokenError(
            f"{together:.6g} together; the mean of each alone is {mean:.6g} over utterances and "
            f"{framed:.6g} over frames"
        )

    def records_add(self) -> str:
        whole = self._records(self.batch)
        if {record.id for record in whole} != {utterance.id for utterance in self.batch}:
            raise NotApplicableError("a record is not of an utterance")
        half = len(self.batch) // 2
        parts = self._records(self.batch[:half]) + self._records(self.batch[half:])
        changed = [
            f"{one.id}: {dict(one.values)} and {dict(other.values)}"
            for one, other in zip(whole, parts, strict=True)
            if one.id != other.id
            or not _alike(list(one.values.values()), list(other.values.values()))
        ]
        return hold(
            not changed,
            f"{len(changed)} records differ, {changed[0]}" if changed else "the same records",
        )

    def gradients(self) -> str:
        head = self.build().train()
        weights = [(name, own) for name, own in head.named_parameters() if own.requires_grad]
        if not weights:
            raise NotApplicableError("the head has no weights")
        logits, lengths = self.forward(head, self.features(self.batch))
        self.loss(logits, lengths, self.batch).backward()  # type: ignore[no-untyped-call]
        dead = [name for name, own in weights if own.grad is None or not own.grad.any()]
        return hold(
            not dead, f"none in {', '.join(dead[:3])}" if dead else f"{len(weights)} tensors"
        )

    def seeds(self) -> str:
        disturb_random_state()
        first = self.build(0).train()
        disturb_random_state()
        second, other = self.build(0).train(), self.build(1).train()
        if not _same_weights(first, second):
            raise BrokenError("other weights for the same seed; draw them in head() alone")
        features = self.features(self.batch)
        with torch.no_grad():
            one, _ = self.forward(first, features)
            disturb_random_state()
            two, _ = self.forward(second, features)
        if isinstance(one, Tensor) and not torch.equal(one, two):
            raise BrokenError(
                "in training, other logits for the same seed; draw from the generator that head() "
                "is given"
            )
        if list(first.parameters()) and _same_weights(first, other):
            raise BrokenError("the same weights for another seed")
        return "bit-identical for one seed"

    def inputs(self) -> str:
        head, features = self.build().train(), self.features(self.batch)
        lengths = torch.tensor([len(own) for own in features])
        frames = pad_sequence(features, batch_first=True)
        given = (frames.clone(), lengths.clone())
        logits, shorter = head(*given)
        changed = ["features"] * (not torch.equal(frames, given[0]))
        changed += ["lengths"] * (not torch.equal(lengths, given[1]))
        framed = isinstance(logits, Tensor)
        logits = logits.detach() if framed else logits
        copies = (logits.clone() if framed else logits, shorter.clone())
        batch = list(self.batch)
        self.loss(*copies, batch)
        answers = self.answers(*copies, batch)
        changed += ["logits"] * (framed and not torch.equal(logits, copies[0]))
        changed += ["lengths of logits"] * (not torch.equal(shorter, copies[1]))
        kept = list(answers)
        self.task.records(batch, answers)
        changed += ["answers"] * (not _alike(answers, kept))
        changed += ["the list of utterances"] * (batch != self.batch)
        return hold(not changed, f"{' and '.join(changed)} changed" if changed else "unchanged")

    def learning(self) -> str:
        head, features = self.build(), self.features(self.batch)
        if not list(head.parameters()):
            raise NotApplicableError("the head has no weights")
        rates = self.training.learning_rates
        rate = rates[len(rates) // 2]
        optimizer = torch.optim.Adam(head.parameters(), lr=rate)
        before = self._loss_of(head, features)
        head.train()
        for _ in range(UPDATES):
            optimizer.zero_grad()
            logits, lengths = self.forward(head, features)
            self.loss(logits, lengths, self.batch).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(head.parameters(), self.training.clip_norm)
            optimizer.step()
        after = self._loss_of(head, features)
        return hold(after < before, f"from {before:.4g} to {after:.4g}, learning rate {rate:g}")

    def _loss_of(self, head: nn.Module, features: Sequence[Tensor]) -> float:
        with torch.no_grad():
            logits, lengths = self.forward(head.eval(), features)
            return float(self.loss(logits, lengths, self.batch))

    def _asked(self, utterances: Sequence[Utterance]) -> list[Any]:
        """The answers to utterances of the batch: of a fresh head, or of a search."""
        made = dict(zip((u.id for u in self.batch), self.features(self.batch), strict=True))
        features = [made[u.id] for u in utterances]
        with torch.no_grad():
            if not self.card.trained:
                return list(self.task.search(features, utterances))
            logits, lengths = self.forward(self.build().eval(), features)
        return self.answers(logits, lengths, utterances)

    def _records(self, utterances: Sequence[Utterance]) -> list[Record]:
        return list(self.task.records(utterances, self._asked(utterances)))

    def _everything(self) -> None:
        """All that is called while heads train and answer, but for making them."""
        if not self.card.trained:
            self._records(self.batch)
            return
        self.task.vocabulary(self.train)
        head, features = self.build().train(), self.features(self.batch)
        logits, lengths = self.forward(head, features)
        loss = self.loss(logits, lengths, self.batch)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        self.forward(head.eval(), features)
        self._records(self.batch)


def _pair(head: nn.Module, features: Sequence[Tensor]) -> tuple[Any, Tensor]:
    """What a head returns, if it is a pair of something and lengths."""
    lengths = torch.tensor([len(frames) for frames in features])
    with torch.no_grad():
        found = head(pad_sequence(list(features), batch_first=True), lengths)
    if not isinstance(found, tuple) or len(found) != 2:
        raise BrokenError(f"the head returns {type(found).__name__}, not (logits, lengths)")
    logits, shorter = found
    if not isinstance(shorter, Tensor) or isinstance(logits, (list, tuple, dict, str, int, float)):
        raise BrokenError("the head returns what is no tensor")
    return logits, shorter


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _change(one: Tensor, other: Tensor) -> float:
    """Relative change of one tensor to another; infinite where there is NaN."""
    change = float((other.double() - one.double()).norm())
    if change == 0:
        return 0.0
    relative = change / float(one.double().norm())
    return relative if math.isfinite(relative) else math.inf


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-6)


def _alike(one: object, other: object) -> bool:
    """Equal answers; numbers in them may differ by rounding."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and _change(one, other) <= TOLERANCE
    if isinstance(one, float) and isinstance(other, float):
        return _near(one, other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if hasattr(one, "__array__") and hasattr(other, "__array__"):
        return _alike(torch.as_tensor(one), torch.as_tensor(other))
    return bool(one == other)
