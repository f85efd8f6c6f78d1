"""A training file on the command line: shown, scored, converted, refused."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

import superb
from benchmark.errors import SuperbError
from superb.cli import app
from superb.training_files import convert_file, file_details
from tests.upstreams.loading import training_files as made


@pytest.fixture
def path(make_model, tmp_path):
    content = made.fairseq_args(made.FAMILIES["hubert"], make_model("hubert"))
    del content["args"].normalize  # as if somebody's own task did not say it
    torch.save(content, tmp_path / "checkpoint_last.pt")
    return tmp_path / "checkpoint_last.pt"


def invoke(*words):
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)


def test_what_is_in_a_file_is_shown(path):
    with pytest.raises(SuperbError, match=r"--set normalize=true\|false"):
        file_details(path, ())
    shown = invoke("upstreams", path, "--set", "normalize=false").output
    for words in (
        "fairseq: hubert",
        "4 x 32, a frame every 320 samples",
        "data LibriSpeech-960, labels a second 50, mask_prob 0.8",
        "steps 400,000",
        "final_proj, label_embs_concat, mask_emb",
        "--downstream ks --set normalize=false",
    ):
        assert words in " ".join(shown.split())
    assert "somebody" not in shown


def test_a_file_and_its_folder_share_a_run(path, places, tmp_path):
    places["layers"] = "last"
    (result,) = superb.run(str(path), "ks", settings=["normalize=false"], **places)
    assert result.upstream["name"] == "checkpoint_last"
    assert "400,000" in result.upstream["training"]
    folder = tmp_path / "converted" / "checkpoint_last"
    told = convert_file(str(path), folder, "superb", ("normalize=false",))
    assert "bit for bit" in told
    (again,) = superb.run(str(folder), "ks", **places)
    assert again.run_id == result.run_id
    assert json.loads((folder / "card.json").read_text())["converted_from"] == path.name


def test_a_checkpoint_is_of_one_encoder(path):
    with pytest.raises(SuperbError, match=r"the file of one --upstream; got hubert, apc"):
        invoke("run", "-u", "hubert,apc", "-d", "ks", "--checkpoint", path)
    with pytest.raises(SuperbError, match=r"A file by itself: --upstream /"):
        invoke("run", "-u", "./x.pt", "-d", "ks", "--checkpoint", path)
    with pytest.raises(SuperbError, match=r"layers, dim and hop \(4, 32, 320\), and hubert-base"):
        invoke("run", "-u", "hubert-base", "-d", "ks", "--checkpoint", path, "--set",
               "normalize=false")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"upstream": "fbank", "settings": ["normalize=true"]}, "for encoders in training files"),
        ({"settings": ["normalize"]}, "takes name=value"),
        ({"settings": []}, "does not say normalize"),
    ],
)
def test_what_is_typed_wrong_is_said(words, message, path, places):
    arguments = {"upstream": str(path), "downstream": "ks", **places, **words}
    with pytest.raises(SuperbError, match=message):
        superb.run(**arguments)


def test_what_is_no_training_file_is_said(path, tmp_path):
    missing = tmp_path / "missing.pt"
    for words, message in (
        (("run", "-u", "av-hubert-base", "-d", "ks", "--checkpoint", missing), "no training file"),
        (("run", "-u", "modified-cpc", "-d", "ks", "--checkpoint", tmp_path), "is a folder, no"),
        (("upstreams", missing), "there is no file"),
        (("upstreams", tmp_path), "is a folder, which --upstream loads"),
        (("upstreams", "hubert-base", "--set", "normalize=true"), "--set is for encoders in tr"),
    ):
        with pytest.raises(SuperbError, match=message):
            invoke(*words)


def test_what_cannot_be_converted_is_said(path, tmp_path):
    with pytest.raises(SuperbError, match="Type --to superb or --to transformers"):
        convert_file(str(path), tmp_path / "out", "onnx", ("normalize=false",))
    with pytest.raises(SuperbError, match="kept as it is"):
        convert_file("fbank", tmp_path / "out", "superb", ())
    with pytest.raises(SuperbError, match="an architecture that transformers has not"):
        convert_file("hubert", tmp_path / "out", "transformers", ())
    assert not (tmp_path / "out").exists()
