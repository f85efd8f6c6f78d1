"""The loop: a killed run goes on to the same weights, and nothing that goes wrong loses any."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import signal
import time

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from benchmark.errors import SuperbError
from benchmark.progress import Progress
from upstreams.loading.load import load_upstream
from upstreams.pretraining import train
from upstreams.pretraining.audio import scan
from upstreams.pretraining.hubert import HuBERT
from upstreams.pretraining.objective import Loss, Recipe
from upstreams.pretraining.run import Source, parse_settings
from upstreams.pretraining.train import pretrain, schedule

SHORT = {"batch_seconds": 4.0, "crop_seconds": 1.2}


pytestmark = pytest.mark.usefixtures("tiny_hubert")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def source(speech):
    return Source(scan([speech]), [str(speech)], corpora=["made-up"], licence="none")


def run(source, output, **options):
    options = {"steps": 12, "recipe": SHORT, "precision": "float32", "device": "cpu", **options}
    options["settings"] = {"clusters": "6", **options.get("settings", {})}
    return pretrain("hubert", source, output, **options)


def rows_of(folder):
    return list(csv.DictReader((folder / "training" / "loss.csv").read_text().splitlines()))


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_what_comes_out_is_an_upstream_with_a_card(source, tmp_path):
    folder = run(source, tmp_path / "mine", command="superb pretrain …")
    upstream = load_upstream(str(folder))
    assert upstream.card.name == "mine"
    assert upstream.card.family == "predictive"
    assert upstream.card.trained_on == {"made-up"}
    states = upstream([torch.randn(8000)])
    assert states.values.shape[0] == upstream.card.layers == 3
    card = json.loads((folder / "card.json").read_text())
    assert card["command"] == "superb pretrain …"
    assert card["run"]["steps"] == 12
    assert card["held_out"]["held_out_loss"] > 0
    # Its checkpoint is an upstream too, before the last step as after it; at full precision.
    kept = load_upstream(str(folder / "training" / "checkpoint.pt"))
    assert kept.card.training == "steps 12"
    noise = 0.1 * torch.randn(8000)
    assert torch.allclose(kept([noise]).values, upstream([noise]).values, atol=0.02)
    rows = rows_of(folder)
    assert int(rows[-1]["step"]) == 12
    assert (folder / "training" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "training" / "tensorboard").iterdir())


class Killed(BaseException):
    pass


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_run_goes_on_to_the_same_weights(source, tmp_path, monkeypatch, accumulate):
    whole = run(source, tmp_path / "whole", accumulate=accumulate)
    update = train.Trainer._update

    def dies(self, *arguments):
        if self.step == 7:
            raise Killed
        return update(self, *arguments)

    monkeypatch.setattr(train.Trainer, "_update", dies)
    with pytest.raises(Killed):
        run(source, tmp_path / "killed", accumulate=accumulate)
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    monkeypatch.setattr(train.Trainer, "_update", update)
    resumed = run(source, tmp_path / "killed", accumulate=accumulate)
    first, second = weights(whole), weights(resumed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    histories = [[row["loss"] for row in rows_of(folder)] for folder in (whole, resumed)]
    assert histories[0] == histories[1]


def test_an_interrupt_in_the_middle_of_a_step_waits_for_its_end(source, tmp_path, monkeypatch):
    whole = run(source, tmp_path / "whole")
    step, calls = torch.optim.AdamW.step, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    report = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "cut", progress=Progress(True, Console(file=report, width=1000)))
    assert "the checkpoint of step 6 is kept" in report.getvalue()
    assert "Type the same command again" in report.getvalue()
    resumed = run(source, tmp_path / "cut")
    assert all(torch.equal(a, weights(resumed)[name]) for name, a in weights(whole).items())


def test_an_interrupt_of_the_last_measurement_is_made_up_for(source, tmp_path, monkeypatch):
    whole = run(source, tmp_path / "whole", steps=4)
    evaluate = train.Trainer._evaluate

    def interrupted(self, batches):
        if self.step == 4:
            raise KeyboardInterrupt
        return evaluate(self, batches)

    with monkeypatch.context() as patched:
        patched.setattr(train.Trainer, "_evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "cut", steps=4)
    resumed = run(source, tmp_path / "cut", steps=4)
    cards = [json.loads((folder / "card.json").read_text()) for folder in (whole, resumed)]
    assert cards[0]["held_out"]["held_out_loss"] == cards[1]["held_out"]["held_out_loss"]
    assert [row["held_out_loss"] for row in rows_of(whole)] == [
        row["held_out_loss"] for row in rows_of(resumed)
    ]


def test_an_interrupt_before_the_first_step_says_so(source, tmp_path, monkeypatch, capsys):
    def interrupt(self, batches, moment):
        raise KeyboardInterrupt

    monkeypatch.setattr(HuBERT, "prepare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "cut")
    assert "the same command starts again" in capsys.readouterr().err
    assert not (tmp_path / "cut").exists()


def test_a_kill_without_warning_falls_back_to_the_checkpoint(source, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_EVERY_S", 0.0)
    whole = run(source, tmp_path / "whole")
    save, update = train.Trainer._save, train.Trainer._update

    def dies(self, *arguments):
        if self.step == 7:
            monkeypatch.setattr(train.Trainer, "_save", lambda self: None)  # no last words
            raise Killed
        return update(self, *arguments)

    def old(self):
        if self.step <= 5:
            save(self)

    monkeypatch.setattr(train.Trainer, "_save", old)
    monkeypatch.setattr(train.Trainer, "_update", dies)
    with pytest.raises(Killed):
        run(source, tmp_path / "killed")
    monkeypatch.setattr(train.Trainer, "_save", save)
    monkeypatch.setattr(train.Trainer, "_update", update)
    resumed = run(source, tmp_path / "killed")
    assert all(torch.equal(a, weights(resumed)[name]) for name, a in weights(whole).items())


def test_the_same_seed_gives_the_same_weights_and_another_one_others(source, tmp_path):
    one, two = run(source, tmp_path / "1", steps=3), run(source, tmp_path / "2", steps=3)
    other = run(source, tmp_path / "3", steps=3, seed=1)
    name = "layers.0.expand.weight"
    assert torch.equal(weights(one)[name], weights(two)[name])
    assert not torch.equal(weights(one)[name], weights(other)[name])


def test_a_step_of_accumulated_batches_follows_the_mean_of_their_gradients(
    source, tmp_path, monkeypatch
):
    parts, taken = [], []

    class Watched(torch.optim.SGD):
        def __init__(self, groups, **_):
            super().__init__(groups, lr=1e-3)

        def step(self, closure=None):
            taken.append([w.grad.clone() for g in self.param_groups for w in g["params"]])
            return super().step(closure)

    forward = HuBERT.forward

    def spying(self, batch, moment):
        loss = forward(self, batch, moment)
        if self.training:
            weights = [weight for weight in self.parameters() if weight.requires_grad]
            # The optimiser's order: first what decays, then the rest.
            weights.sort(key=lambda weight: weight.dim() <= 1)
            parts.append(torch.autograd.grad(loss.value, weights, retain_graph=True))
        return loss

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    monkeypatch.setattr(HuBERT, "forward", spying)
    monkeypatch.setattr(train.Trainer, "_try_shortest", lambda self: None)
    folder = run(source, tmp_path / "a", steps=2, accumulate=3, recipe={**SHORT, "clip_norm": 1e9})
    assert [int(row["step"]) for row in rows_of(folder)] == [1, 2]
    assert (len(taken), len(parts)) == (2, 6)
    for given, three in zip(taken, (parts[:3], parts[3:]), strict=True):
        for gradient, batches in zip(given, zip(*three, strict=True), strict=True):
            assert torch.allclose(gradient, sum(batches) / 3, atol=1e-7, rtol=1e-4)


def test_minutes_become_steps_once_and_for_all(source, tmp_path):
    run(source, tmp_path / "m", steps=None, minutes=0.02)
    known = json.loads((tmp_path / "m" / "training" / "run.json").read_text())
    assert known["steps"] >= 1
    run(source, tmp_path / "m", steps=None, minutes=0.02)  # the same run: nothing left to do
    assert json.loads((tmp_path / "m" / "training" / "run.json").read_text()) == known


def test_timing_steps_leaves_no_trace(source, tmp_path, monkeypatch):
    run(source, tmp_path / "steps", steps=5)
    monkeypatch.setattr(
        train.Trainer,
        "_steps_left",
        lambda self, timed=train.Trainer._steps_left: timed(self) * 0 + 5,
    )
    run(source, tmp_path / "minutes", steps=None, minutes=1.0)
    timed = weights(tmp_path / "minutes")
    assert all(torch.equal(a, timed[name]) for name, a in weights(tmp_path / "steps").items())


def test_a_finished_run_is_not_run_again(source, tmp_path, monkeypatch):
    folder = run(source, tmp_path / "done", steps=3)
    before = weights(folder)
    monkeypatch.setattr(train.Trainer, "_update", None)
    run(source, folder, steps=3)
    assert all(torch.equal(before[name], weights(folder)[name]) for name in before)


def test_a_run_of_before_there_was_a_setting_is_gone_on_with(source, tmp_path):
    folder = run(source, tmp_path / "old", steps=2)
    path = folder / "training" / "run.json"
    known = json.loads(path.read_text())
    del known["settings"]["disturbed"]
    path.write_text(json.dumps(known))
    run(source, folder, steps=2)
    with pytest.raises(SuperbError, match=r"differs in settings \(disturbed\)\."):
        run(source, folder, steps=2, settings={"disturbed": "0.5"})


@pytest.mark.parametrize("written", [True, False])
def test_a_run_whose_body_was_another_in_an_earlier_version_is_kept(
    source, tmp_path, monkeypatch, written
):
    """Its weights fit the body of today, which hears other frames."""
    body = dataclasses.replace(HuBERT.sizes["mini"], conv_dims=(16, 16, 16))
    monkeypatch.setattr(HuBERT, "sizes", {"mini": body})
    folder = run(source, tmp_path / "old", steps=2)
    path = folder / "training" / "checkpoint.pt"
    if not written:  # as before checkpoints told
        state = torch.load(path, weights_only=True)
        del state["encoder"]
        torch.save(state, path)
    run(source, folder, steps=2)
    before = (folder / "config.json").read_text()
    today = {"mini": dataclasses.replace(body, input_state=True)}
    monkeypatch.setattr(HuBERT, "sizes", today)
    with pytest.raises(SuperbError, match="--size mini was in an earlier version"):
        run(source, folder, steps=2)
    assert (folder / "config.json").read_text() == before


def test_another_run_in_the_folder_is_named_and_kept(source, tmp_path):
    folder = run(source, tmp_path / "mine", steps=2)
    with pytest.raises(SuperbError, match=r"differs in recipe \(learning_rate\), seed\."):
        run(source, folder, steps=2, seed=5, recipe={**SHORT, "learning_rate": 0.1})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("…")
    with pytest.raises(SuperbError, match="holds no run"):
        run(source, tmp_path / "full")


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(
    source, tmp_path, monkeypatch
):
    forward, calls = HuBERT.forward, []

    def breaks(self, batch, moment):
        loss = forward(self, batch, moment)
        calls.extend([1] * torch.is_grad_enabled())
        return Loss(loss.value * (float("nan") if len(calls) == 6 else 1.0), loss.parts)

    monkeypatch.setattr(train, "EVALUATIONS", 1)
    monkeypatch.setattr(HuBERT, "forward", breaks)
    with pytest.raises(SuperbError, match=r"no number at step 5.*lower learning rate"):
        run(source, tmp_path / "nan")
    state = torch.load(tmp_path / "nan" / "training" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 5
    assert all(bool(weight.isfinite().all()) for weight in state["objective"].values())


def test_a_full_disk_keeps_the_last_checkpoint(source, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_EVERY_S", 0.0)
    save, calls = torch.save, []

    def fills(state, path):
        calls.append(1)
        if len(calls) > 3:
            path.write_bytes(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file data/4: No space left")
        save(state, path)

    monkeypatch.setattr(torch, "save", fills)
    with pytest.raises(SuperbError, match=r"No space left.*checkpoint\.pt, is kept"):
        run(source, tmp_path / "full")
    monkeypatch.setattr(torch, "save", save)
    state = torch.load(tmp_path / "full" / "training" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3
    assert not (tmp_path / "full" / "training" / "checkpoint.new").exists()


def test_a_disk_that_is_full_before_the_first_step_leaves_nothing_in_the_way(
    source, tmp_path, monkeypatch
):
    def fills(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_bytes", fills)
        with pytest.raises(SuperbError, match=r"No space left.*Make room"):
            run(source, tmp_path / "out", steps=1)
    (tmp_path / "out" / "training" / "run.new").write_text("{")  # as a killed program leaves it
    run(source, tmp_path / "out", steps=1)


def test_a_full_disk_under_the_log_is_one_message(source, tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def fills(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fills)
    with pytest.raises(SuperbError, match="No space left"):
        run(source, tmp_path / "out", steps=2)


@pytest.mark.parametrize("content", [b"PK half a file", b""])
def test_a_damaged_checkpoint_is_named(source, tmp_path, content):
    folder = run(source, tmp_path / "mine", steps=3)
    (folder / "training" / "checkpoint.pt").write_bytes(content)
    with pytest.raises(SuperbError, match=r"checkpoint\.pt.*Delete it"):
        run(source, folder, steps=3)


def test_short_clips_are_left_out_aloud_and_none_left_is_an_error(source, tmp_path, capsys):
    run(
        source,
        tmp_path / "a",
        steps=1,
        recipe={**SHORT, "min_seconds": 1.8},
        progress=Progress(True),
    )
    assert "6 of 12 files are shorter than 1.8 s (--min-seconds)" in capsys.readouterr().err
    with pytest.raises(SuperbError, match="at least 2 usable clips"):
        run(source, tmp_path / "b", recipe={**SHORT, "min_seconds": 60.0})


def test_crops_shorter_than_the_mask_are_refused_with_advice(source, tmp_path):
    with pytest.raises(SuperbError, match="longer audio"):
        run(source, tmp_path / "a", settings={"mask_span": "500"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3, "minutes": 1.0}, "either --steps or --minutes"),
        ({"steps": None}, "either --steps or --minutes"),
        ({"steps": -1}, "--steps must be above 0"),
        ({"size": "huge"}, "unknown size"),
        ({"precision": "float8"}, "unknown value of --precision"),
        ({"device": "tpu"}, "unknown device"),
        ({"seed": -1}, "--seed must be from 0"),
        ({"recipe": {**SHORT, "crop_seconds": 0.001}}, r"must be at least 0\.065"),
        ({"recipe": {"learning_rate": 0.0}}, "learning_rate"),
        ({"recipe": {"warm_up": 2.0}}, "warm_up"),
        ({"settings": {"clusters": "many"}}, "clusters takes int"),
        ({"settings": {"cluster": "5"}}, "Did you mean clusters"),
        ({"initial": "mfcc"}, "not of the architecture"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(source, tmp_path, options, message):
    with pytest.raises(SuperbError, match=message):
        run(source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_objective_is_refused(source, tmp_path):
    with pytest.raises(SuperbError, match="Did you mean hubert"):
        pretrain("hubart", source, tmp_path / "out", steps=1)


def test_precision_can_differ_from_run_to_run_in_one_program(source, tmp_path):
    run(source, tmp_path / "1", steps=1)
    run(source, tmp_path / "2", steps=1, precision="bfloat16")


@pytest.mark.parametrize(
    ("multiplies", "step_s", "chosen"),
    [
        ("float32", {}, "float32"),
        ("bfloat16", {"float32": 2.0, "bfloat16": 1.0}, "bfloat16"),
        ("bfloat16", {"float32": 1.0, "bfloat16": 2.0}, "float32"),
    ],
)
def test_the_faster_precision_is_chosen_once(
    source, tmp_path, monkeypatch, multiplies, step_s, chosen
):
    monkeypatch.setattr(train, "faster_precision", lambda device: (multiplies, "as measured"))
    monkeypatch.setattr(train.Trainer, "_step_s", lambda self: step_s[self.run.precision])
    run(source, tmp_path / "auto", steps=2, precision="auto")
    known = json.loads((tmp_path / "auto" / "training" / "run.json").read_text())
    assert known["precision"] == chosen
    monkeypatch.setattr(train, "faster_precision", None)  # nobody asks again
    run(source, tmp_path / "auto", steps=2, precision="auto")
    run(source, tmp_path / "typed", steps=2, precision=chosen)
    typed = weights(tmp_path / "typed")
    assert all(torch.equal(a, typed[name]) for name, a in weights(tmp_path / "auto").items())


def test_minutes_count_from_when_the_command_began(source, tmp_path, monkeypatch):
    """What came before leaves fewer steps; where none is left, nothing is trained."""
    monkeypatch.setattr(train.Trainer, "_step_s", lambda self: 1.0)
    found = []
    for minutes_ago in (0, 30):
        folder = tmp_path / str(minutes_ago)
        monkeypatch.setattr(train.Trainer, "_loop", lambda self, steps, *rest: found.append(steps))
        began = time.monotonic() - 60 * minutes_ago
        run(source, folder, steps=None, minutes=60.0, began=began)
    assert found[0] == pytest.approx(3600, rel=0.05)
    assert found[1] == pytest.approx(1800, rel=0.05)
    with pytest.raises(SuperbError, match=r"--minutes 60 is too short: .* Type --minutes \d+"):
        run(source, tmp_path / "late", steps=None, minutes=60.0, began=time.monotonic() - 5400)
    assert not (tmp_path / "late").exists()


def test_batches_are_only_decoded_for_who_prepares(source, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(HuBERT, "prepare", lambda self, batches, moment: {})
    read = train.Stream.read
    monkeypatch.setattr(
        train.Stream, "read", lambda self, plan: (decoded.append(plan), read(self, plan))[1]
    )
    run(source, tmp_path / "a", steps=1)
    assert len(decoded) == 2  # the shortest recording, and the one that is held out


def test_processes_that_see_other_checkpoints_are_refused(source, tmp_path, monkeypatch):
    from accelerate.accelerator import Accelerator

    monkeypatch.setattr(Accelerator, "gather", lambda self, step: torch.tensor([0, 40]))
    with pytest.raises(SuperbError, match=r"different steps, \[0, 40\].*all machines share"):
        run(source, tmp_path / "a", steps=1)


def test_a_card_counts_what_the_encoders_it_comes_from_have_heard(source, tmp_path):
    other = dataclasses.replace(source, corpora=["more"])
    first = run(source, tmp_path / "first", steps=1)
    second = run(other, tmp_path / "second", steps=1, initial=str(first))
    assert load_upstream(str(second)).card.trained_on == {"made-up", "more"}
    cards = [json.loads((folder / "card.json").read_text()) for folder in (first, second)]
    once, twice = (card["audio"]["seconds_heard"] for card in cards)
    assert once == cards[0]["run"]["recipe"]["batch_seconds"]
    assert twice == 2 * once
    assert f"{twice / 3600:.1f} h with repetitions" in cards[1]["note"]
    assert cards[1]["commands_before"] == [cards[0]["command"]]
    unknown = run(dataclasses.replace(source, corpora=None), tmp_path / "unknown", steps=1)
    taught = run(source, tmp_path / "taught", steps=1, settings={"teacher": str(unknown)})
    assert load_upstream(str(taught)).card.trained_on is None


@pytest.mark.parametrize(
    "said", [{}, {"audio": {"seconds_heard": float("nan")}}, {"audio": {"seconds_heard": True}}]
)
def test_what_a_card_says_of_before_is_taken_if_it_can_be(source, tmp_path, monkeypatch, said):
    """A folder that is called as a bundled encoder is not that one."""
    first = run(source, tmp_path / "hubert", steps=1)
    card = json.loads((first / "card.json").read_text())
    del card["audio"]
    hostile = {"commands_before": [[1], "before", 5], "command": "last"}
    (first / "card.json").write_text(json.dumps({**card, **hostile, **said}))
    monkeypatch.chdir(tmp_path)
    second = run(source, tmp_path / "second", steps=1, initial="./hubert")
    card = json.loads((second / "card.json").read_text())
    assert card["audio"]["seconds_heard"] is None
    assert card["note"].endswith("after ./hubert")
    assert card["commands_before"] == ["before", "last"]


def test_an_encoder_can_start_from_another_ones_weights(source, tmp_path):
    first = run(source, tmp_path / "first", steps=2)
    rest = {**SHORT, "learning_rate": 1e-12}
    second = run(source, tmp_path / "second", steps=1, initial=str(first), recipe=rest)
    for name, weight in weights(first).items():
        torch.testing.assert_close(weights(second)[name], weight)


def test_settings_are_read_from_text_by_their_type():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Settings:
        count: int = 1
        share: float = 0.5
        kind: str = "a"
        loud: bool = False

    found = parse_settings(Settings, {"count": "3", "share": "1", "kind": "b", "loud": "true"})
    assert found == Settings(3, 1.0, "b", True)
    with pytest.raises(SuperbError, match="loud takes bool"):
        parse_settings(Settings, {"loud": "perhaps"})


def test_the_rate_rises_then_falls_to_nothing():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[9] == pytest.approx(1.0)
    assert rates[0] == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 90)


def test_only_matrices_decay():
    groups = train._groups(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), Recipe())
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert groups[1]["weight_decay"] == 0.0
