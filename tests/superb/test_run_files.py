"""Runs as files: what is read, refused, laid over and written, and that it is the same run."""

from __future__ import annotations

import inspect
import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import superb
from benchmark.errors import SuperbError
from benchmark.jobs import dry_run
from benchmark.progress import Progress
from downstreams.corpora import Manifest
from superb.cli import app
from superb.compose import build_site
from superb.run_files import Asked, key_of, read_run_file, write_run_file
from superb.spec import OPTIONS

QUIET = Progress(quiet=True)
TABLE = """\
layers = "last"
seeds = 2

[protocol]
name = "short"
version = 1
base = "rules.toml"
mean = { updates = 20 }

[[run]]
upstream = ["fbank", "./bands.py:Bands"]
downstream = "ks"

[[run]]
upstream = "untrained:nets/one"
downstream = ["ks", "asr"]
seeds = 3
corpus = { name = "own", manifest = "data.tsv", train-split = "a+b" }
protocol = "rules.toml"
log-dir = "logs"
"""


def test_options_arguments_and_keys_are_the_same():
    asked = {name: field.default for name, field in OPTIONS.items()}
    arguments = inspect.signature(superb.run).parameters
    own = {"dry_run", "progress"}
    assert asked.keys() == arguments.keys() - own
    (command,) = [command for name, command in get_command(app).commands.items() if name == "run"]
    typed = {param.name: param for param in command.params}
    assert asked.keys() == typed.keys() - {"file", "dry_run", "print_config", "as_json", "quiet"}
    for name in asked.keys() - {"upstream", "downstream"}:
        given = arguments[name].default
        assert type(asked[name])(given) == asked[name] if given is not None else asked[name] is None
        text = typed[name].default
        as_typed = ",".join(asked[name]) if isinstance(asked[name], tuple) else asked[name]
        assert (text or None) == (as_typed or None), name
        assert f"--{key_of(name)}" in typed[name].opts


def test_tables_inherit_and_paths_start_from_the_file(tmp_path, monkeypatch):
    (tmp_path / "in" / "nets" / "one").mkdir(parents=True)
    path = tmp_path / "in" / "table.toml"
    path.write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    first, second = read_run_file(path.relative_to(tmp_path))
    assert first.values["upstream"] == ["fbank", "in/bands.py:Bands"]
    assert (first.values["layers"], first.values["seeds"]) == (["last"], 2)
    assert first.values["protocol"]["base"] == "in/rules.toml"
    assert second.values["upstream"] == ["untrained:in/nets/one"]
    assert (second.values["seeds"], second.values["protocol"]) == (3, "in/rules.toml")
    spec = second.spec()
    assert spec.corpus == Manifest(tmp_path.__class__("in/data.tsv"), "own")
    assert spec.options.splits == {"train": "a+b"}
    assert str(spec.log_dir) == "in/logs"
    assert spec.file.place == "in/table.toml, [[run]] 2 (line 14)"
    # what is typed is laid over all, and what is written is read as the same
    asked = [own.overruled({"seeds": 1, "device": "cpu"}) for own in (first, second)]
    (tmp_path / "again.toml").write_text(write_run_file(asked))
    again = read_run_file(tmp_path.__class__("again.toml"))
    assert [dict(own.values) for own in again] == [dict(own.values) for own in asked]
    path.write_text(TABLE.replace('name = "own", manifest = "data.tsv"', 'name = "data.tsv"'))
    assert read_run_file(path)[1].spec().corpus == str(path.parent / "data.tsv")
    # splits in a table are those of its corpus, and none of another one that is typed
    other = second.overruled({"corpus": "other.tsv", "test-split": "b"})
    assert other.spec().options.splits == {"test": "b"}
    assert second.overruled({"test-split": "b"}).spec().options.splits == {
        "train": "a+b",
        "test": "b",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("upstraem = 'a'", "line 1: unknown key 'upstraem'. Did you mean upstream"),
        ("seeds = 1\n\ndata_root = 'a'", "line 3: unknown key 'data_root'. Did you mean data-root"),
        ("[[run]]\nseed = 2", "line 2: unknown key 'seed'. Did you mean seeds?"),
        ("seeds = '3'", "line 1: seeds must be a whole number, got '3'"),
        ("seeds = true", "seeds must be a whole number, got True"),
        ("trust-remote-code = 1", "must be true or false, got 1"),
        ("output = 3", "output must be text, got 3"),
        ("layers = [0]", "layers must be a text or a list of texts, got [0]"),
        ("layers = 'last, 0'", 'several go into a list: layers = ["last", "0"]'),
        ("corpus = 3", "corpus must be text or a table, got 3"),
        ("[corpus]\nfile = 'a'", "line 1: unknown key of corpus 'file'"),
        ("[corpus]\ndata-root = 'a'", "corpus needs a name"),
        ("data-root = 'a'\ncorpus = {name = 'b', data-root = 'c'}", "data-root is in the table"),
        ('output = "a\\u0000b"', "line 1: output holds a character of code 0"),
        ("[protocol.asr]\nsteps = 2020-01-01", "protocol holds 2020-01-01; allowed are text"),
        ("quiet = true", "quiet says what is shown: type --quiet instead"),
        ("run = 3", "run must be tables, each under a line [[run]]"),
        ("seeds = 1\nseeds = 2", "is not valid TOML"),
        ("upstream = 'fbank'", "missing key downstream: superb downstreams lists"),
        ("upstream = []\ndownstream = 'ks'", "missing key upstream"),
        ("upstream = 'fbank'\ndownstream = 'ks'\nprotocol = {base = 'mini'}", "needs a name"),
        ("upstream = 'fbank'\ndownstream = 'kws'", "Did you mean ks?"),
        ("upstream = 'fbank'\ndownstream = 'ks'\nprecision = 'float8'", "float8"),
    ],
)
def test_a_mistake_is_one_message_with_its_place(tmp_path, text, says):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(SuperbError, match=re.escape(says)) as found:
        superb.run_file(path, progress=QUIET)
    assert "wrong.toml" in str(found.value)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a = " + b"9" * 5000, b"[" * 2000])
def test_what_is_no_text_is_refused(tmp_path, data):
    (tmp_path / "bad.toml").write_bytes(data)
    with pytest.raises(SuperbError, match=r"bad\.toml is not valid TOML"):
        read_run_file(tmp_path / "bad.toml")


def test_the_printed_file_of_a_command_is_the_same_run(tmp_path, tones, quick, bands_file):
    words = ["run", "-u", f"{bands_file}:Bands", "-d", "ks,asr", "--corpus", str(tones)]
    words += ["--protocol", str(quick), "--labels", "1s,all", "--seeds", "2", "-l", "last"]
    printed = CliRunner().invoke(app, [*words, "--print-config"])
    assert printed.exit_code == 0
    path = tmp_path / "experiment.toml"
    path.write_text(printed.stdout)
    (asked,) = read_run_file(path)
    typed = {"upstream": [f"{bands_file}:Bands"], "downstream": ["ks", "asr"]}
    typed |= {"corpus": str(tones), "protocol": str(quick), "labels": ["1s", "all"]}
    typed |= {"seeds": 2, "layers": ["last"]}
    assert asked.values == typed
    one, other = (build_site(own.spec(), QUIET) for own in (Asked(typed), asked))
    cells = one.cells("bands")
    assert len(cells) == 4
    ids = [[site.run_id(cell, "float16") for cell in cells] for site in (one, other)]
    assert ids[0] == ids[1]
    # with what is typed laid over it, it is another one
    again = CliRunner().invoke(app, ["run", str(path), "--seeds", "1", "--print-config"])
    assert "seeds = 1\n" in again.stdout
    assert "--seeds as typed overrules" in again.stderr


def test_a_file_is_named_by_its_results_and_changes_none(tmp_path, places, bands_file, monkeypatch):
    speeds = dict.fromkeys(("float16", "float32", "int8"), 1e8)
    monkeypatch.setattr(dry_run, "disk_speed", lambda folder: (speeds, speeds))
    monkeypatch.setattr(dry_run, "update_seconds", lambda *of: 0.01)
    upstream = f"{bands_file}:Bands"
    path = tmp_path / "my table.toml"
    common = f'corpus = "{places["corpus"]}"\nprotocol = "{places["protocol"]}"\n'
    common += 'output = "results"\ncache-dir = "cache"\nlayers = "last"\n'
    groups = "".join(f'[[run]]\ndownstream = "{task}"\n' for task in ("ks", "sid"))
    path.write_text(f'upstream = "{upstream}"\n{common}{groups}')
    shown = CliRunner().invoke(app, ["run", str(path), "--dry-run", "-q"])
    assert "2 results: 0 done, 2 left" in shown.stdout
    assert not places["output"].exists()
    ks, sid = superb.run_file(path, progress=QUIET)
    assert (ks.downstream["name"], sid.downstream["name"]) == ("ks", "sid")
    assert ks.provenance["file"]["name"] == "my table.toml"
    assert len(ks.provenance["file"]["sha256"]) == 64
    # the same run without a file is this one
    assert superb.run(upstream, "ks", layers="last", **places) == [ks]
    shown = CliRunner().invoke(app, ["run", str(path), "--dry-run", "-q", "--seeds", "2"])
    assert "2 results: 0 done, 2 left" in shown.stdout
    shown = CliRunner().invoke(app, ["run", str(path), "--dry-run", "-q", "-l", "last,0"])
    assert "4 results: 2 done, 2 left" in shown.stdout
    # what two groups ask for is made once
    twice = ["run", str(path), "--dry-run", "-q", "-d", "ks", "-l", "last,0"]
    shown = CliRunner().invoke(app, twice)
    assert "2 results: 1 done, 1 left" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
