"""The commands as a user types them: what they print, how they end, what they import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from superb.cli import app

PLUGIN = Path(__file__).resolve().parents[1] / "plugin" / "my_encoder.py"


def superb(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "superb", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "HF_HUB_OFFLINE": "1", **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tones, quick):
    """One run of a plug-in on own data, three layer choices, two tasks."""
    folder = tmp_path_factory.mktemp("finished")
    done = superb(
        "run", "--upstream", f"{PLUGIN}:MyEncoder", "--downstream", "ks,sid",
        "--layers", "last,weighted-sum,0", "--corpus", tones, "--protocol", quick,
        "--output", folder / "results", "--cache-dir", folder / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_run_prints_scores_with_intervals_and_the_gain_of_the_weighted_sum(finished):
    folder, done = finished
    lines = done.stdout.splitlines()
    row = next(line for line in lines if "weighted-sum" in line)
    assert "accuracy % ↑" in row
    assert row.count("[") == 2  # the score's interval, and the difference's
    assert "protocol quick v1, one seed" in done.stdout
    assert str(folder / "results") in done.stdout.replace("\n", "")


def test_progress_is_plain_lines_when_not_on_a_terminal(finished):
    _, done = finished
    assert "encoding 72 utterances" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout


def test_the_same_command_with_json_prints_the_records_and_runs_nothing(finished, tones, quick):
    folder, _ = finished
    again = superb(
        "run", "-u", f"{PLUGIN}:MyEncoder", "-d", "ks", "--corpus", tones, "--protocol", quick,
        "-o", folder / "results", "--cache-dir", folder / "cache", "--json",
    )  # fmt: skip
    records = json.loads(again.stdout)
    assert [record["layer"] for record in records] == ["last", "weighted-sum"]
    assert records[0]["metrics"]["accuracy"]["clusters"] == 4
    assert "finished before, not run again" in again.stderr
    assert "encoding" not in again.stderr


def test_quiet_leaves_only_warnings(finished, tones, quick):
    folder, _ = finished
    quiet = superb(
        "run", "-u", f"{PLUGIN}:MyEncoder", "-d", "ks", "--corpus", tones, "--protocol", quick,
        "-o", folder / "other", "--cache-dir", folder / "cache", "-q",
    )  # fmt: skip
    assert all(line.startswith("warning:") for line in quiet.stderr.splitlines())


def test_the_leaderboard_reads_what_the_run_wrote(finished):
    folder, _ = finished
    shown = superb("leaderboard", folder / "results")
    assert shown.returncode == 0
    assert "last ↑" in shown.stdout
    assert "weighted-sum ↑" in shown.stdout
    markdown = superb(
        "leaderboard", folder / "results", "--format", "markdown", "--output", folder / "board.md"
    )
    assert markdown.returncode == 0
    # in the summary and in the tables of both tasks
    assert (folder / "board.md").read_text().count("| my-encoder") == 3


def test_the_cache_is_listed_and_cleared(finished, tmp_path):
    folder, _ = finished
    listed = superb("cache", "--cache-dir", folder / "cache")
    assert "my-encoder" in listed.stdout
    assert "72" in listed.stdout
    missing = superb("cache", "clear", "nobody", "--cache-dir", folder / "cache")
    assert missing.returncode == 2
    assert "my-encoder" in missing.stderr
    empty = superb("cache", "clear", "--cache-dir", tmp_path)
    assert "cleared 0 stores" in empty.stdout


def test_check_passes_and_fails_with_exit_codes(tmp_path):
    assert superb("check", f"{PLUGIN}:MyEncoder").returncode == 0
    broken = tmp_path / "broken.py"
    broken.write_text(PLUGIN.read_text().replace("layers=", "layers=1 + "))
    failed = superb("check", f"{broken}:MyEncoder")
    assert failed.returncode == 1
    assert "failed" in failed.stdout
    assert "expected:" in failed.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "-u", "hubrt", "-d", "asr"], "Did you mean hubert"),
        (["run", "-u", "fbank", "-d", "kws"], "Did you mean ks"),
        (["run", "-u", "fbank", "-d", "ks", "-l", "3"], "layer 3 does not exist"),
        (["run", "-u", "fbank", "-d", "ks", "-l", "lst"], "Did you mean last"),
        (["run", "-u", "fbank", "-d", "ks", "--corpus", "gone.tsv"], "gone.tsv"),
        (["run", "-u", "hubert-base", "-d", "ks"], "HF_HUB_OFFLINE"),
        (["run", "-u", "nowhere.py:Encoder", "-d", "ks"], "there is no file"),
        (["run", "-u", "fbank", "-d", "ks", "--device", "tpu"], "--device cpu, cuda or auto"),
        (["run", "-u", "fbank"], "Missing option"),
        (["run", "--upstraem", "fbank", "-d", "ks"], "No such option"),
        (["leaderboard", "nothing-here"], "does not exist"),
        (["check", "fbnk"], "Did you mean fbank"),
        (["frobnicate"], "No such command"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_two(words, message, tmp_path):
    done = superb(*words, SUPERB_CACHE=str(tmp_path), HF_HOME=str(tmp_path))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_plug_in_that_raises_is_named_with_file_and_line(tmp_path, tones, quick):
    plugin = tmp_path / "bad.py"
    plugin.write_text(
        "from superb import UpstreamCard\n"
        "class Bad:\n"
        "    card = UpstreamCard(name='bad', layers=1, dim=1, hop_samples=160)\n"
        "    def __call__(self, waveforms):\n"
        "        raise ValueError('no idea')\n"
    )
    done = superb(
        "run", "-u", f"{plugin}:Bad", "-d", "ks", "--corpus", tones, "--protocol", quick,
        "-o", tmp_path / "results", "--cache-dir", tmp_path / "cache",
    )  # fmt: skip
    assert done.returncode == 2
    assert "ValueError: no idea" in done.stderr
    assert "bad.py:5" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_the_next_run_goes_on(tmp_path, tones, quick):
    slow = tmp_path / "slow.py"
    slow.write_text(
        PLUGIN.read_text() + "\nimport time\nclass Slow(MyEncoder):\n"
        "    def __call__(self, waveforms):\n"
        "        time.sleep(0.2)\n        return super().__call__(waveforms)\n"
    )
    words = [
        "run", "-u", f"{slow}:Slow", "-d", "ks", "--corpus", tones, "--protocol", quick,
        "-o", tmp_path / "results", "--cache-dir", tmp_path / "cache",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "superb", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "features: " in line:  # the first word of progress: some are encoded, not all
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert not list((tmp_path / "results").rglob("*.json"))
    resumed = superb(*words)
    assert resumed.returncode == 0, resumed.stderr
    left = int(resumed.stderr.split("encoding ")[1].split()[0])
    assert 0 < left < 72


def test_help_and_lists_start_without_torch(tmp_path, finished):
    folder, _ = finished
    commands = [["--help"], ["upstreams"], ["downstreams"], ["corpora"], ["cache"]]
    commands += [["run", "--help"], ["leaderboard", str(folder / "results")]]
    for command in commands:
        program = (
            "import sys\n"
            f"sys.argv = ['superb', *{command!r}]\n"
            "from superb.cli import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "named = {'torch', 'transformers', 'pandas', 'sklearn', 'datasets'}\n"
            "heavy = named & set(sys.modules)\n"
            "assert not heavy, heavy\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "SUPERB_CACHE": str(tmp_path)},
        )
        assert done.returncode == 0, (command, done.stderr)


def test_the_lists_name_everything(tmp_path):
    from downstreams import DOWNSTREAMS
    from downstreams.corpora import CORPORA
    from upstreams.catalogue import UPSTREAMS

    for command, names in (
        ("upstreams", UPSTREAMS),
        ("downstreams", DOWNSTREAMS),
        ("corpora", CORPORA),
    ):
        listed = superb(command).stdout
        assert all(name in listed for name in names)


def test_an_encoder_of_the_table_is_described_whole():
    from upstreams.catalogue import UPSTREAMS

    wide = superb("upstreams", "--wide").stdout
    for name, entry in UPSTREAMS.items():
        row = next(line for line in wide.splitlines() if line.split()[:1] == [name])
        for fact in (entry.paper, entry.licence, entry.family, entry.revision[:10]):
            assert fact in row, (name, fact)
        for corpus in entry.trained_on or ():
            assert corpus in row
    shown = superb("upstreams", "hubert-base").stdout
    for fact in ("94,370,816", "facebook/hubert-base-ls960", "apache-2.0", "librispeech", "2106"):
        assert fact in shown
    assert "nobody published" in superb("upstreams", "wav2vec-c").stdout
    refused = superb("upstreams", "hubrt")
    assert refused.returncode == 2
    assert "Did you mean hubert" in refused.stderr


def test_weights_in_the_hub_cache_are_listed_as_cached(tmp_path):
    from upstreams.catalogue import UPSTREAMS

    entry = UPSTREAMS["hubert-base"]
    folder = tmp_path / "hub" / "models--facebook--hubert-base-ls960" / "snapshots" / entry.revision
    folder.mkdir(parents=True)
    assert "cached" in superb("upstreams", "hubert-base", HF_HOME=str(tmp_path)).stdout
    assert "at the first use" in superb("upstreams", "hubert-large", HF_HOME=str(tmp_path)).stdout
    assert "here" in superb("upstreams", "hubert").stdout


def test_version():
    import superb as package

    assert superb("--version").stdout.strip() == f"superb {package.__version__}"


def test_superb_alone_shows_what_a_newcomer_needs_in_80_columns():
    shown = superb(COLUMNS="80")
    assert shown.returncode == 0
    assert [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("  ")] == [
        "run", "leaderboard", "report",
    ]  # fmt: skip
    assert max(map(len, shown.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["run", "--upstream", "fbank,hubert-ba"], ["fbank,hubert-base"]),
        (["run", "--downstream", "al"], ["all"]),
        (["run", "--corpus", "mi"], ["mini"]),
        (["leader"], ["leaderboard"]),
    ],
)
def test_a_shell_completes_commands_and_names(words, offered):
    line = " ".join(["superb", *words])
    asked = {"_SUPERB_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    shown = CliRunner().invoke(app, env=asked, prog_name="superb")
    assert shown.stdout.split() == offered
