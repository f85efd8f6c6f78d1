"""superb pretrain as a user types it: what goes in, what comes out, what is said next."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from benchmark.core import SPLITS
from benchmark.errors import SuperbError
from downstreams.corpora import CORPORA
from downstreams.corpora.load import load_corpus
from downstreams.load import load_downstream
from superb.pretraining import corpus_clips, gather
from upstreams.pretraining import OBJECTIVES
from upstreams.pretraining.run import objective_class


def superb(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "superb", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("recordings")
    random = np.random.default_rng(0)
    for index in range(6):
        soundfile.write(made / f"{index}.wav", 0.1 * random.standard_normal(24_000), 16_000)
    return made


def test_a_run_ends_with_an_encoder_and_the_next_command(folder, tmp_path):
    output = tmp_path / "mine"
    done = superb(
        "pretrain", "--objective", "apc", "--audio", folder, "--output", output, "--steps", 2,
        "--batch-seconds", 3, "--trained-on", "noise", "--licence", "MIT", "--threads", 1,
        "--attribution", "nobody", "--set", "steps_ahead=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"superb run --upstream {output} --downstream asr,sid,ks" in done.stdout
    assert "Traceback" not in done.stderr
    card = json.loads((output / "card.json").read_text())
    assert card["trained_on"] == ["noise"]
    assert card["run"]["settings"]["steps_ahead"] == 2
    assert card["command"].startswith("superb pretrain --objective apc")
    checked = superb("check", output)
    assert checked.returncode == 0, checked.stdout


# A process for which steps take other times than for its neighbour, and which says what it settled.
OWN_CLOCK = """
import json, os
from pathlib import Path
from superb.cli import app
from upstreams.models.generative import APCConfig
from upstreams.pretraining import train
from upstreams.pretraining.generative import APC

APC.sizes = {"mini": APCConfig(dim=16, layers=1)}
rank = int(os.environ["RANK"])
train.faster_precision = lambda device: (("bfloat16", "float32")[rank], "so it says")
seconds_of, train_on = train.seconds_of, train.Trainer._loop
times = iter([0.001] * 9 if rank else [1e3, 2e3, 1e3, 500.0])  # bfloat16, float32, again, a look

def timed(work, device):
    seconds_of(work, device)
    return next(times)

def loop(self, *given):
    settled = [self.run.precision, self.run.steps, self.run.looks]
    Path(os.environ["SETTLED"], str(rank)).write_text(json.dumps(settled))
    return train_on(self, *given)

train.seconds_of, train.Trainer._loop = timed, loop
app()
"""


def test_two_processes_agree_share_the_batches_and_speak_once(folder, tmp_path):
    """On the arithmetic and the number of steps, whatever the clock of each says."""
    script, output = tmp_path / "own_clock.py", tmp_path / "mine"
    script.write_text(OWN_CLOCK)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", script,
            "pretrain", "--objective", "apc", "--audio", folder, "--output", output,
            "--minutes", "60", "--precision", "auto", "--batch-seconds", "6",
            "--device", "cpu", "--threads", "1",
        ],
        env=os.environ | {"SETTLED": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("superb run --upstream") == 1
    own = json.loads((output / "card.json").read_text())["run"]
    assert own["processes"] == 2
    first, second = (json.loads((tmp_path / rank).read_text()) for rank in "01")
    assert first == second
    # as the first process has it: the other would make thousands, in float32
    assert first[:2] == ["bfloat16", own["steps"]]
    assert 1 <= own["steps"] <= 3


def test_the_end_of_a_batch_job_keeps_the_run_and_says_how_to_go_on(folder, tmp_path):
    output = tmp_path / "mine"
    words = [
        "pretrain", "--objective", "apc", "--audio", folder, "--output", output,
        "--steps", 1_000_000, "--batch-seconds", 3, "--threads", 1,
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "superb", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("training apc from step 0"):
            break
    time.sleep(5)
    process.terminate()
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    said = re.search(r"checkpoint of step (\d+) is kept.*Type the same command again", rest)
    assert said is not None, rest
    state = torch.load(output / "training" / "checkpoint.pt", weights_only=True)
    assert state["step"] == int(said[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "apcc"], "Did you mean apc"),
        (["--audio", "/nowhere"], "no such folder"),
        (["--audio", "librispeech"], "not bundled; give the folder of its recordings"),
        (["--set", "steps_ahead"], "--set takes name=value"),
        (["--set", "step=1"], "unknown setting 'step'"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--minutes", "1"], "either --steps or --minutes"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(folder, tmp_path, words, message):
    given = ["--objective", "apc", "--audio", str(folder), "--steps", "1"]
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option in given:
            given[given.index(option) + 1] = value
        else:
            given += [option, value]
    done = superb("pretrain", *given, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_objectives_are_listed_with_all_that_can_be_set():
    listed = superb("objectives")
    assert listed.returncode == 0
    for name in OBJECTIVES:
        assert name in listed.stdout
    shown = superb("objectives", "wav2vec-c")
    assert "consistency_weight" in shown.stdout
    assert "mask_share" in shown.stdout  # inherited, and described all the same
    assert superb("objectives", "nothing").returncode == 2


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_everything_that_can_be_set_is_described(name):
    from dataclasses import fields

    from superb.pretraining import _described

    kind = objective_class(name)
    for field in fields(kind.Settings):
        assert _described(kind.Settings, field.name), field.name


def test_nothing_of_a_valid_or_test_split_of_any_task_is_taken_from_a_corpus():
    chosen = {clip.audio for clip in corpus_clips("mini")}
    assert len(chosen) > 100
    by_split: dict[str, set[bytes | Path]] = {split: set() for split in SPLITS}
    for task in CORPORA["mini"].tasks:
        for utterance in load_corpus("mini", load_downstream(task).card).utterances:
            if isinstance(utterance.audio, bytes | Path):
                by_split[utterance.split].add(utterance.audio)
    assert not chosen & (by_split["valid"] | by_split["test"])
    assert chosen <= by_split["train"]


def test_what_folders_hold_is_unknown_unless_said(folder):
    assert gather([str(folder)]).corpora is None
    assert gather([str(folder)], trained_on=["noise"]).corpora == ["noise"]
    assert gather(["mini"]).corpora == ["mini"]
    assert gather([str(folder), "mini"]).corpora is None
    with pytest.raises(SuperbError, match="--audio"):
        gather([])
    with pytest.raises(SuperbError, match="each corpus once"):
        gather(["mini", "mini"])
