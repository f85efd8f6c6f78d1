"""Upstreams, tasks, corpora and heads from outside: an installed package, and single files."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import superb
from benchmark.conformance import check_upstream, raise_for_failures
from benchmark.registry import load_object, plugins
from downstreams.corpora.load import corpus_names
from downstreams.load import downstream_names, load_downstream
from downstreams.recogniser import head_names
from superb.check import check_head, find_kind
from superb.cli import app

FOLDER = Path(__file__).parent


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package as pip would leave it: its module and the entry points of its pyproject."""
    settings = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    project = settings["project"]
    information = tmp_path / f"superb_toy_plugin-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (information / "entry_points.txt").write_text("\n".join(lines))
    modules = settings["tool"]["setuptools"]["py-modules"]
    for module in modules:
        (tmp_path / f"{module}.py").write_bytes((FOLDER / f"{module}.py").read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def words(tmp_path, tones):
    """The tones of the other tests as SPLIT/SPEAKER/WORD-NUMBER.wav."""
    for line in tones.read_text().splitlines()[1:]:
        name, split, speaker, _, word = line.split("\t")
        path = tmp_path / "words" / split / speaker / f"{word}-{name[-5]}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((tones.parent / name).read_bytes())
    return tmp_path / "words"


def test_an_installed_upstream_is_found_and_conforms(installed):
    upstream = load_object(plugins("superb.upstreams")["toy-energy"])
    assert upstream.card.name == "toy-energy"
    checks = check_upstream(upstream)
    raise_for_failures(checks)
    assert all(check.passed for check in checks)


def test_an_upstream_in_a_file_conforms():
    specification = importlib.util.spec_from_file_location("my_encoder", FOLDER / "my_encoder.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    upstream = module.MyEncoder()
    checks = check_upstream(upstream)
    raise_for_failures(checks)
    states = upstream([torch.zeros(400), torch.zeros(16_000)])
    assert states.values.shape == (3, 2, 49, 64)
    assert states.lengths.tolist() == [1, 49]


def test_an_installed_task_is_found_and_conforms(installed):
    assert "word-count" in downstream_names()
    raise_for_failures(superb.check_downstream("word-count"))
    raise_for_failures(superb.check_downstream("word-count", "mini"))


def test_an_installed_head_is_found_and_conforms(installed):
    assert "linear-ctc" in head_names()
    raise_for_failures(check_head("linear-ctc"))
    assert find_kind(f"{FOLDER}/linear_ctc.py:LinearCtc") == find_kind("linear-ctc") == "head"
    task = load_downstream("asr").with_head("linear-ctc")
    assert (task.card.name, task.card.base) == ("asr-linear-ctc", "asr")


@pytest.mark.parametrize("task", ["ks", "sid", "word-count"])
def test_an_installed_corpus_is_found_and_conforms(installed, words, task):
    assert "words" in corpus_names()
    checks = superb.check_corpus("words", task, data_root=words)
    raise_for_failures(checks)
    assert "words (" in checks[0].found


def test_lists_name_the_package(installed):
    for command, name in (("downstreams", "word-count"), ("corpora", "words")):
        lines = CliRunner().invoke(app, [command], env={"COLUMNS": "150"}).stdout.splitlines()
        assert any(name in line and "superb-toy-plugin" in line for line in lines), lines


def test_all_three_run_together_from_files(tmp_path, words):
    values = "updates = 60\nevaluate_every = 20\n"
    protocol = tmp_path / "short.toml"
    protocol.write_text(f'name = "short"\nversion = 1\nbase = "mini"\n[word-count]\n{values}')
    arguments = [
        *("run", "--upstream", f"{FOLDER}/toy_upstream.py:EnergyUpstream"),
        *("--downstream", f"{FOLDER}/word_count.py:WordCount", "--layers", "last"),
        *("--corpus", f"{FOLDER}/my_corpus.py:load", "--data-root", str(words)),
        *("--protocol", str(protocol), "--output", str(tmp_path / "results")),
        *("--cache-dir", str(tmp_path / "cache"), "--device", "cpu"),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (result,) = superb.load_results(tmp_path / "results").itertuples()
    assert (result.upstream, result.downstream, result.corpus) == (
        *("toy-energy", "word-count", "my_corpus"),
    )
    assert 0 < result.value < 3  # words; every one of these utterances has one


def test_the_packages_metadata_is_complete():
    # What pip needs to build it; the target is checked by loading it above.
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    modules = project["tool"]["setuptools"]["py-modules"]
    groups = project["project"]["entry-points"].values()
    assert modules == [target.split(":")[0] for group in groups for target in group.values()]
    assert "superb" in project["project"]["dependencies"]


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("adding-an-upstream.md", "my_encoder.py"),
        ("adding-a-task.md", "word_count.py"),
        ("adding-a-corpus.md", "my_corpus.py"),
    ],
)
def test_the_documentation_shows_this_very_file(page, file):
    text = (FOLDER.parents[1] / "docs" / page).read_text()
    assert f"```python\n{(FOLDER / file).read_text()}```" in text
    assert len((FOLDER / file).read_text().splitlines()) < 50
