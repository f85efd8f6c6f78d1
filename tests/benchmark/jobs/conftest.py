"""Sites as a run builds them, of a toy encoder and tones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark.jobs.site import Site
from superb.compose import build_site
from superb.spec import RunSpec


@pytest.fixture
def spec_of(places: dict[str, Any]):
    """A run as it is asked for."""

    def make(*upstreams: object, tasks: tuple[object, ...] = ("ks",), **changes: Any) -> RunSpec:
        given = {
            "corpus": places["corpus"],
            "protocol": places["protocol"],
            "output": places["output"],
            "cache_dir": places["cache_dir"],
            "device": "cpu",
            "storage": "float16",
        }
        return RunSpec(upstreams, tasks, **{**given, **changes})

    return make


@pytest.fixture
def site_of(spec_of, places: dict[str, Any], bands: type[Any]):
    """A site; of the toy encoder unless others are given."""

    def make(*upstreams: object, **changes: Any) -> Site:
        return build_site(spec_of(*(upstreams or (bands(),)), **changes), places["progress"])

    return make


@pytest.fixture
def changed(quick: Path, tmp_path: Path):
    """A file of the quick protocol with some text replaced where it first stands."""

    def make(*replacements: tuple[str, str]) -> str:
        text = quick.read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "changed.toml"
        path.write_text(text)
        return str(path)

    return make
