"""The loop: a killed run goes on to the same weights, and nothing that goes wrong loses any."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from benchmark.errors import SuperbError
from upstreams.load import load_upstream
from upstreams.pretraining import train
from upstreams.pretraining.audio import scan
from upstreams.pretraining.objective import Loss, Recipe
from upstreams.pretraining.train import Source, parse_settings, pretrain, schedule

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


def test_accumulated_batches_make_one_step_of_their_mean(source, tmp_path):
    folder = run(source, tmp_path / "a", steps=4, accumulate=3)
    rows = rows_of(folder)
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]


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
        "_steps_in",
        lambda self, minutes, timed=train.Trainer._steps_in: timed(self, minutes) * 0 + 5,
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


def test_another_run_in_the_folder_is_named_and_kept(source, tmp_path):
    folder = run(source, tmp_path / "mine", steps=2)
    with pytest.raises(SuperbError, match=r"differs in recipe, seed"):
        run(source, folder, steps=2, seed=5, recipe={**SHORT, "learning_rate": 0.1})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("…")
    with pytest.raises(SuperbError, match="holds no run"):
        run(source, tmp_path / "full")


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(
    source, tmp_path, monkeypatch
):
    from upstreams.pretraining.hubert import HuBERT

    forward, calls = HuBERT.forward, []

    def breaks(self, batch, moment):
        loss = forward(self, batch, moment)
        calls.append(1)
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


def test_a_damaged_checkpoint_is_named(source, tmp_path):
    folder = run(source, tmp_path / "mine", steps=3)
    (folder / "training" / "checkpoint.pt").write_bytes(b"PK half a file")
    with pytest.raises(SuperbError, match=r"checkpoint\.pt.*Delete it"):
        run(source, folder, steps=3)


def test_short_clips_are_left_out_aloud_and_none_left_is_an_error(source, tmp_path, capsys):
    from benchmark.progress import Progress

    run(
        source,
        tmp_path / "a",
        steps=1,
        recipe={**SHORT, "min_seconds": 1.8},
        progress=Progress(True),
    )
    assert "6 of 12 files are shorter than 1.8 s" in capsys.readouterr().err
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
        ({"precision": "float8"}, "unknown precision"),
        ({"device": "tpu"}, "unknown device"),
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
