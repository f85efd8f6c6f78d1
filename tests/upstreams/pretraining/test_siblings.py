"""What is said of runs beside one another."""

import json
from dataclasses import replace

import pytest

from upstreams.loading import pretrained
from upstreams.models.architecture import untrained_encoder
from upstreams.pretraining.bodies import SHARED
from upstreams.pretraining.objective import Recipe
from upstreams.pretraining.run import TRAINING, Run
from upstreams.pretraining.siblings import differing


@pytest.fixture
def write(tmp_path):
    def made(name, objective, size, steps, batch_seconds=60.0, **more):
        path = tmp_path / name / TRAINING / "run.json"
        path.parent.mkdir(parents=True)
        recipe = {"batch_seconds": batch_seconds}
        run = {"objective": objective, "size": size, "steps": steps, "recipe": recipe, **more}
        path.write_text(json.dumps(run), encoding="utf-8")

    return made


def asked(size, steps=100):
    recipe = Recipe(batch_seconds=60.0)
    return Run("hubert", size, {}, recipe, 0, steps, None, "float32", 1, "", "")


def test_runs_of_one_body_and_as_much_audio_can_be_compared(write, tmp_path):
    write("apc", "apc", "mini-recurrent", 101)
    write("cpc", "cpc", "mini-recurrent", 200, 30.0)
    assert differing(asked("mini-recurrent"), tmp_path / "hubert") == []


def test_another_body_and_other_seconds_are_said(write, tmp_path):
    write("apc", "apc", "mini", 100)
    write("wav2vec2", "wav2vec2", "mini", 400)
    write("hubert", "hubert", "mini", 7)  # itself
    write("other", "of-a-plug-in", "mini", 100)
    write("early", "apc", "mini", None)
    (tmp_path / "broken" / TRAINING).mkdir(parents=True)
    (tmp_path / "broken" / TRAINING / "run.json").write_text("{", encoding="utf-8")
    apc, early, wav2vec2 = differing(asked("mini"), tmp_path / "hubert")
    assert apc == ("apc (apc) beside it: another body, APC of 3.0 M in place of Encoder of 3.0 M")
    assert "0 s of audio" in early
    assert wav2vec2 == "wav2vec2 (wav2vec2) beside it: 24,000 s of audio heard in place of 6,000"


def test_a_body_is_what_it_was_when_the_run_ended(write, tmp_path):
    """What a size is called may be another body by now."""
    write("old", "wav2vec2", "mini", 100)
    old = replace(SHARED["mini-transformer"], input_state=False)
    pretrained.save(tmp_path / "old", old, untrained_encoder(old, 0), {"family": "contrastive"})
    (line,) = differing(asked("mini"), tmp_path / "hubert")
    assert line == ("old (wav2vec2) beside it: another body, input_state False in place of True")


def test_other_recordings_and_other_encoders_behind_a_run_are_said(write, tmp_path):
    write("apc", "apc", "mini-recurrent", 100, audio="others", initial="runs/old")
    write("hubert-1", "hubert", "mini-recurrent", 100, settings={"teacher": "runs/hubert-0"})
    first, second = differing(asked("mini-recurrent"), tmp_path / "hubert")
    assert first.endswith("other recordings; started by runs/old in place of none")
    assert second.endswith("taught by runs/hubert-0 in place of none")
