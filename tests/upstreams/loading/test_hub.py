"""The hub: what is fetched, and what a user reads when it cannot be."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import huggingface_hub.errors
import pytest
from huggingface_hub import constants

from benchmark.errors import UpstreamError
from upstreams.loading import hub
from upstreams.loading.load import load_upstream

COMMIT = "dba3bb02fda4248b6e082697eee756de8fe8aa8a"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def answer(monkeypatch, reply):
    """Make the hub's model look-up return or raise `reply`."""

    def model_info(self, repository, revision=None, timeout=None):
        assert timeout == hub.TIMEOUT_S
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)


def put_in_cache(cache, folder, repository="acme/tiny"):
    stored = cache / f"models--{repository.replace('/', '--')}"
    (stored / "snapshots").mkdir(parents=True)
    folder.rename(stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    return stored / "snapshots" / COMMIT


@pytest.mark.parametrize("name", ["hubert-base", "acme/tiny", "hf:acme/tiny@v1"])
def test_offline_says_all_three_ways_out(cache, offline, name):
    start = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        load_upstream(name)
    message = str(caught.value)
    assert "HF_HUB_OFFLINE is set" in message
    assert str(cache) in message
    assert "HF_HUB_CACHE" in message
    assert "--upstream /path/to/folder" in message
    assert time.monotonic() - start < 5


def test_an_unreachable_hub_names_the_cause(cache, monkeypatch):
    answer(monkeypatch, ConnectionError("Name or service not known"))
    with pytest.raises(
        UpstreamError, match=r"cannot be reached \(ConnectionError: Name or service"
    ):
        load_upstream("acme/tiny")


def http_error(kind):
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    return kind("no", response=response)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (huggingface_hub.errors.RepositoryNotFoundError, "has no model 'acme/tiny'"),
        (huggingface_hub.errors.GatedRepoError, "is gated"),
        (huggingface_hub.errors.RevisionNotFoundError, "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses(cache, monkeypatch, kind, says):
    answer(monkeypatch, http_error(kind))
    with pytest.raises(UpstreamError, match=says):
        load_upstream("acme/tiny@v9")


def test_a_name_the_hub_would_not_take(cache):
    with pytest.raises(UpstreamError, match="is no hub id"):
        load_upstream("acme/tiny--name")


@pytest.mark.parametrize("name", [f"acme/tiny@{COMMIT}", "acme/tiny"])
def test_what_is_cached_needs_no_network(cache, offline, make_folder, name):
    put_in_cache(cache, make_folder()[0])
    card = load_upstream(name).card
    assert (card.name, card.source, card.revision) == ("acme/tiny", "acme/tiny", COMMIT)


def test_a_cached_commit_asks_nobody(cache, monkeypatch, make_folder):
    put_in_cache(cache, make_folder()[0])
    answer(monkeypatch, AssertionError("asked the hub"))
    assert hub.download("acme/tiny", COMMIT).name == COMMIT


def test_half_a_snapshot_is_not_used(cache, offline, make_folder):
    snapshot = put_in_cache(cache, make_folder()[0])
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UpstreamError, match="not in the cache"):
        load_upstream(f"acme/tiny@{COMMIT}")
    assert load_upstream(f"untrained:acme/tiny@{COMMIT}").card.family == "untrained"


def test_the_newest_commit_is_resolved_then_recorded(cache, monkeypatch, make_folder):
    snapshot = put_in_cache(cache, make_folder()[0])
    files = [SimpleNamespace(rfilename=file.name) for file in snapshot.iterdir()]
    answer(monkeypatch, SimpleNamespace(sha=COMMIT, siblings=files))
    asked = {}

    def fetch(repository, revision, allow_patterns, local_files_only=False):
        asked.update(repository=repository, revision=revision, files=allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert load_upstream("acme/tiny").card.revision == COMMIT
    assert asked["revision"] == COMMIT
    assert sorted(asked["files"]) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


def test_a_repository_in_another_format(cache, monkeypatch, tmp_path):
    answer(monkeypatch, SimpleNamespace(sha=COMMIT, siblings=[]))
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(UpstreamError, match="only checkpoints in the transformers format"):
        load_upstream("acme/tiny")


def test_pickles_only_where_there_is_nothing_else():
    both = ["config.json", "pytorch_model.bin", "model.safetensors", "tf_model.h5", "README.md"]
    assert hub.wanted(both) == ["config.json", "model.safetensors"]
    assert hub.wanted(both[:2]) == ["config.json", "pytorch_model.bin"]
    shards = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    assert hub.wanted(shards) == shards
    assert hub.wanted(both, weights=False) == ["config.json"]


def test_newer_checkpoints_have_other_settings():
    files = ["config.json", "processor_config.json", "tokenizer.json"]
    assert hub.wanted(files, weights=False) == files[:2]


def test_code_only_for_who_trusts_it():
    files = ["config.json", "modeling_mine.py", "scripts/evaluate.py", "model.safetensors"]
    assert hub.wanted(files) == ["config.json", "model.safetensors"]
    assert hub.wanted(files, code=True) == ["config.json", "modeling_mine.py", "model.safetensors"]
    assert hub.wanted(files, weights=False, code=True) == ["config.json", "modeling_mine.py"]


def test_a_snapshot_fetched_without_trust_lacks_the_code(cache, monkeypatch, make_folder):
    snapshot = put_in_cache(cache, make_folder()[0])
    answer(monkeypatch, ConnectionError("no network"))
    assert hub.download("acme/tiny", COMMIT, code=True) == snapshot  # brings none along
    settings = json.loads((snapshot / "config.json").read_text())
    settings["auto_map"] = {"AutoModel": "modeling_mine.Mine"}
    (snapshot / "config.json").write_text(json.dumps(settings))
    assert hub.download("acme/tiny", COMMIT) == snapshot
    with pytest.raises(UpstreamError, match="cannot be reached"):
        hub.download("acme/tiny", COMMIT, code=True)
    (snapshot / "modeling_mine.py").touch()
    assert hub.download("acme/tiny", COMMIT, code=True) == snapshot
