"""The Python face: lazy, typed, and safe from folders of the same name."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import superb

ROOT = Path(__file__).resolve().parents[2]


def test_every_public_name_resolves():
    for name in superb.__all__:
        assert getattr(superb, name) is not None
    assert set(superb.__all__) - {"__version__"} == set(superb._PUBLIC)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="frobnicate"):
        _ = superb.frobnicate


def test_the_version_is_the_package_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert superb.__version__ == project["version"]


@pytest.mark.parametrize("intruder", ["benchmark.py", "upstreams/__init__.py"])
def test_a_users_own_module_of_the_same_name_is_reported(tmp_path, intruder):
    path = tmp_path / intruder
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "import superb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
    )
    assert done.returncode != 0
    assert str(tmp_path / intruder.split("/")[0]) in done.stderr
    assert "Rename that file or folder" in done.stderr


def test_load_upstream_gives_hidden_states():
    import torch

    encoder = superb.load_upstream("hubert")
    states = encoder([torch.randn(8_000), torch.randn(16_000)])
    assert isinstance(states, superb.HiddenStates)
    assert states.values.shape[:2] == (encoder.card.layers, 2)
    assert states.lengths.tolist() == [22, 47]  # of 65 ms each, every 20 ms


def test_results_load_as_a_table(tmp_path, tones, quick):
    results = superb.run(
        upstream=superb.load_upstream("fbank"),
        downstream="ks",
        corpus=str(tones),
        protocol=str(quick),
        output=tmp_path / "results",
        cache_dir=tmp_path / "cache",
        layers="last",
    )
    table = superb.load_results(tmp_path / "results")
    assert len(table) == len(results) == 1
    assert table.loc[0, "upstream"] == "fbank"
    assert table.loc[0, "value"] == pytest.approx(results[0].metrics["accuracy"]["value"])
