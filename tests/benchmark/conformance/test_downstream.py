"""The suite of tasks: a correct toy passes it, and one broken rule fails exactly one check."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.conformance import check_downstream, raise_for_failures
from benchmark.conformance.downstream import EXPECTED, made_up_utterances
from benchmark.core import DownstreamCard, Metric, Record
from benchmark.errors import SuperbError
from benchmark.protocol import Protocol

VALUES = {
    "updates": 10,
    "batch_utterances": 8,
    "accumulate": 1,
    "sampling": "shuffle",
    "crop_s": 0.0,
    "crops": 1,
    "gain_db": 0.0,
    "first_seed": 0,
    "learning_rates": [1e-2],
    "schedule": "constant",
    "warmup": 0,
    "clip_norm": 1.0,
    "head_precision": "float32",
    "standardise": True,
    "evaluate_every": 10,
    "valid_sampling": "all",
    "select_by": "score-loss",
    "patience": 0,
    "halving": [],
}


@pytest.fixture
def protocols(tmp_path):
    return [Protocol("quick", 1, "", tmp_path, {"frames": VALUES, "mean": VALUES})]


class Pooled(nn.Module):
    """Linear, mean over time, dropout from a generator of its own, linear."""

    def __init__(self, dim, width, outputs, generator):
        super().__init__()
        self.first, self.second = nn.Linear(dim, width), nn.Linear(width, outputs)
        self.generator = generator

    def bend(self, hidden):
        return hidden

    def pool(self, hidden, lengths):
        own = torch.arange(hidden.shape[1]) < lengths[:, None]
        return (hidden * own[..., None]).sum(1) / lengths[:, None]

    def drop(self, pooled):
        if not self.training:
            return pooled
        return pooled * (torch.rand(pooled.shape, generator=self.generator) > 0.1)

    def forward(self, frames, lengths):
        pooled = self.pool(self.bend(self.first(frames)), lengths)
        return self.second(self.drop(pooled)), lengths


class Toy:
    """A correct task: three classes, from time means."""

    kind = Pooled
    card = DownstreamCard(
        "toy", "Toy", 1, (Metric("accuracy", "higher"),), "mean", needs=("emotion",),
        label_from="emotion",
    )  # fmt: skip
    training = {"head": {"width": 8}}

    def vocabulary(self, train):
        return tuple(sorted({u.label for u in train}))

    def head(self, dim, hop_s, outputs, settings, generator):
        return self.kind(dim, settings["width"], outputs, generator)

    def loss(self, logits, lengths, utterances, vocabulary):
        targets = torch.tensor([vocabulary.index(u.label) for u in utterances])
        return nn.functional.cross_entropy(logits, targets)

    def answer(self, logits, lengths, utterances, vocabulary):
        return [vocabulary[index] for index in logits.argmax(-1).tolist()]

    def records(self, utterances, answers):
        return [
            Record(u.id, (u.speaker,), u.label, a, {"accuracy": (int(a == u.label), 1)})
            for u, a in zip(utterances, answers, strict=True)
        ]


def broken(name, method, base=Toy, kind=None):
    """The toy with one method in place of its own; with `kind`, of its head."""
    if kind is None:
        return type("Broken", (base,), {name: method})()
    return type("Broken", (base,), {"kind": type("Head", (kind,), {name: method})})()


def rebuilt(change):
    def records(self, utterances, answers):
        return [change(r) for r in Toy.records(self, utterances, answers)]

    return records


def with_values(*values):
    return rebuilt(
        lambda r: Record(r.id, r.clusters, r.reference, r.hypothesis, {"accuracy": values})
    )


def halve_in_place(self, frames, lengths):
    return Pooled.forward(self, frames.mul_(0.5), lengths)


def batch_norm(self, hidden):
    return hidden - hidden.mean((0, 1))


def unmasked(self, hidden, lengths):
    return hidden.mean(1)


def one_record(self, utterances, answers):
    right = sum(a == u.label for u, a in zip(utterances, answers, strict=True))
    return [Record("all", ("",), "", "", {"accuracy": (right, len(answers))})]


def seeded_by_nobody(self, dim, hop_s, outputs, settings, generator):
    generator = torch.Generator()
    generator.seed()
    return Pooled(dim, 8, outputs, generator)


def same_for_every_seed(self, dim, hop_s, outputs, settings, generator):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Pooled(dim, 8, outputs, generator)


def unused(self, dim, hop_s, outputs, settings, generator):
    head = Pooled(dim, 8, outputs, generator)
    head.extra = nn.Linear(2, 2)
    return head


def global_loss(self, logits, lengths, utterances, vocabulary):
    torch.rand(1)
    return Toy.loss(self, logits, lengths, utterances, vocabulary)


FORGETFUL = iter(range(10**6))

BROKEN = [
    (broken("card", None), "card", "no attribute `card`"),
    (broken("training", None), "training", "no attribute `training`"),
    (broken("training", {"head": {"width": "8"}}), "training", "head.width must be a number"),
    (broken("training", {"updats": 1}), "training", "Did you mean updates"),
    (broken("vocabulary", lambda s, t: [u.label for u in t]), "vocabulary", "["),
    (broken("vocabulary", lambda s, t: ()), "vocabulary", "no outputs"),
    (broken("vocabulary", lambda s, t: ("a", "a")), "vocabulary", "2 outputs, of which 1"),
    (broken("vocabulary", lambda s, t: tuple({u.label: 0 for u in t})), "vocabulary", "another"),
    (broken("head", lambda s, *a: lambda f, n: f), "head", "a function, not a torch"),
    (
        broken("forward", lambda s, f, n: (s.second(s.first(f)), n), kind=Pooled),
        "head",
        " for 10 utterances and 3 outputs",
    ),
    (broken("forward", lambda s, f, n: s.first(f), kind=Pooled), "head", "Tensor, not (logits"),
    (
        broken("forward", lambda s, f, n: (s.first(f).mean(1), n), kind=Pooled),
        "head",
        "logits (10, 8)",
    ),
    (broken("loss", lambda s, x, n, u, v: x), "loss", "a tensor (10, 3)"),
    (broken("loss", lambda s, x, n, u, v: x.sum() / 0), "loss", "inf"),
    (broken("loss", lambda s, x, n, u, v: x.detach().sum()), "loss", "detached"),
    (broken("answer", lambda s, *a: ["x"]), "answer", "1 answers for 10 utterances"),
    (
        broken("answer", lambda s, x, n, u, v: [next(FORGETFUL) for _ in u]),
        "answer",
        "when asked again",
    ),
    (broken("records", with_values(1)), "records", "not a tuple (numerator, denominator)"),
    (broken("records", with_values(float("nan"), 1)), "records", "not finite numbers"),
    (broken("records", with_values(1, 0)), "records", ""),
    (
        broken("records", rebuilt(lambda r: Record("x", ("",), "", "", r.values))),
        "records",
        "ids that occur twice",
    ),
    (
        broken("records", rebuilt(lambda r: Record(r.id, ("",), "", "", {}))),
        "records",
        "values for nothing; the card's metrics are accuracy",
    ),
    (broken("pool", unmasked, kind=Pooled), "padding", "change"),
    (broken("bend", lambda s, h: torch.relu(h), kind=Pooled), "time-mean", "nothing may be nonl"),
    (
        broken("loss", lambda s, *a: 5 * Toy.loss(s, *a) * len(a[2])),
        "loss-mean",
        "the mean of each alone is",
    ),
    (broken("head", unused), "gradients", "none in extra.weight, extra.bias"),
    (broken("head", same_for_every_seed), "seeds", "the same weights for another seed"),
    (broken("head", seeded_by_nobody), "seeds", "draw from the generator"),
    (broken("loss", global_loss), "random-state", "torch changed"),
    (broken("forward", halve_in_place, kind=Pooled), "inputs", "features changed"),
    (broken("loss", lambda s, x, n, u, v: 0 * x.sum() + 1.0), "gradients", "none in first"),
]
# A head that reads padding has other losses too, and a loss without a gradient cannot fall.
FOLLOW = {"change": ["time-mean", "loss-mean"], "none in first": ["learning"]}


def failures(checks):
    return {check.name: check.found for check in checks if check.passed is False}


def test_a_correct_task_passes_everything(protocols):
    before = torch.get_rng_state()
    checks = check_downstream(Toy(), protocols=protocols)
    assert [check.name for check in checks] == list(EXPECTED)
    assert all(check.passed for check in checks), failures(checks)
    raise_for_failures(checks)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("task", "name", "says"), BROKEN, ids=lambda value: str(value)[:20])
def test_one_broken_rule_fails_its_check(protocols, task, name, says):
    checks = check_downstream(task, protocols=protocols)
    found = failures(checks)
    assert list(found) == [name, *FOLLOW.get(says, ())], found
    assert says in found[name]
    with pytest.raises(SuperbError, match=f"{len(found)} of {len(EXPECTED)} checks failed"):
        raise_for_failures(checks)


def test_a_class_in_place_of_an_object(protocols):
    class Cardless(Toy):
        card = None

    assert (
        "pass an object, Cardless()"
        in failures(check_downstream(Cardless, protocols=protocols))["card"]
    )


def test_what_depends_on_the_batch_is_noticed(protocols):
    found = failures(check_downstream(broken("bend", batch_norm, kind=Pooled), protocols=protocols))
    assert "relative change" in found["padding"]


def test_a_loss_over_frames_is_said_to_be_one(protocols):
    class Framed(Toy):
        def loss(self, logits, lengths, utterances, vocabulary):
            targets = torch.tensor([vocabulary.index(u.label) for u in utterances])
            each = nn.functional.cross_entropy(logits, targets, reduction="none")
            return (each * lengths).sum() / lengths.sum()

    checks = {c.name: c for c in check_downstream(Framed(), protocols=protocols)}
    assert "longer utterances count for more" in checks["loss-mean"].found
    assert checks["loss-mean"].passed


def test_records_of_no_single_utterance_need_not_add_up(protocols):
    checks = {
        c.name: c for c in check_downstream(broken("records", one_record), protocols=protocols)
    }
    assert not failures(checks.values())
    assert checks["records-add"].passed is None


def test_without_weights_there_is_nothing_to_learn(protocols):
    class Fixed(nn.Module):
        def forward(self, frames, lengths):
            mean = frames.sum(1) / lengths[:, None]
            return mean[:, :3], lengths

    task = broken("head", lambda s, *given: Fixed())
    checks = {c.name: c for c in check_downstream(task, protocols=protocols)}
    assert not failures(checks.values())
    assert checks["learning"].passed is checks["gradients"].passed is None


def test_utterances_of_ones_own(protocols):
    own = made_up_utterances(Toy.card, 30)
    checks = check_downstream(Toy(), protocols=protocols, utterances=own)
    assert "3 outputs from 30 utterances" in {c.name: c.found for c in checks}["vocabulary"]
    assert (
        "no utterances"
        in failures(check_downstream(Toy(), protocols=protocols, utterances=[]))["card"]
    )
