"""``superb data`` as a user types it: tables, JSON, exit codes, one message for a mistake."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from benchmark.core import Utterance
from benchmark.errors import SuperbError
from downstreams.corpora import CORPORA, CorpusEntry
from downstreams.corpora.download import file_name
from downstreams.corpora.layout import Archive, Layout, Official, Survey
from superb import cli, data

RATE = 16_000


def survey(root: Path) -> Survey:
    """SPLIT/SPEAKER-TAKE.wav."""
    paths = sorted(root.glob("t*/*.wav"))
    if not paths:
        raise SuperbError(f"no toy corpus in {root}; give --data-root another folder")
    return Survey(
        tuple(
            Utterance(path.stem, path, path.parent.name, path.name.partition("-")[0])
            for path in paths
        ),
        missing={} if (root / "test" / "cy-1.wav").is_file() else {Path("test/cy-1.wav"): "test"},
    )


OFFICIAL = {"train": Official(4_000, 2, 1.5), "test": Official(2), "other": Official(9)}


@pytest.fixture
def corpora(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The corpora `toy`, which can be downloaded from a file, and `asked`, which cannot."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("cy-0", "cy-1"):
            sound = wav(sum(name.encode()))
            member = tarfile.TarInfo(f"test/{name}.wav")
            member.size = len(sound)
            archive.addfile(member, io.BytesIO(sound))
    (tmp_path / "toy.tar.gz").write_bytes(packed.getvalue())
    archives = (Archive((tmp_path / "toy.tar.gz").as_uri(), None, None, "", ("test",)),)
    module = ModuleType("toy_corpus")
    module.TOY = Layout(survey, OFFICIAL, archives, "Record it.")
    module.ASKED = Layout(survey, OFFICIAL, (), "Ask its owners.")
    monkeypatch.setitem(sys.modules, "toy_corpus", module)
    for name in ("toy", "asked"):
        entry = CorpusEntry(
            name, name, ("sid",), "", "", "", "toy_corpus:load", f"toy_corpus:{name.upper()}"
        )
        monkeypatch.setitem(CORPORA, name, entry)
    return module


def wav(seed: int, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    random = np.random.default_rng(seed)
    soundfile.write(buffer, 0.1 * random.uniform(-1, 1, 4_000), rate, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for split, speakers in (("train", ("ada", "ben")), ("test", ("cy",))):
        (root / split).mkdir(parents=True)
        for speaker in speakers:
            for take in range(2):
                name = f"{speaker}-{take}"
                (root / split / f"{name}.wav").write_bytes(wav(sum(name.encode())))
    return root


@pytest.fixture
def superb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a command in this process: its exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "80")
    before = signal.getsignal(signal.SIGTERM)

    def enter(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["superb", "data", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    yield enter
    signal.signal(signal.SIGTERM, before)


def test_a_partial_copy_is_reported_exactly_and_is_no_error(superb, corpora, root):
    code, out, err = superb("check", "toy", "--data-root", root)
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "superb data check toy: no errors, 1 warning"
    rows = [" ".join(line.split()) for line in lines]
    assert "train 4 of 4,000 2 of 2 0.00 of 1.5" in rows
    assert "test 2 of 2 1 0.00" in rows
    assert "train: 4 of 4000 utterances, 2 of 2 speakers" in lines
    assert "note: not there: other" in lines
    assert max(map(len, out.splitlines())) <= 80
    assert "checking audio: 6/6" in err


def test_errors_end_with_one_and_name_the_first_files_and_the_count(superb, corpora, root):
    for path in (root / "train").glob("*.wav"):
        path.write_bytes(path.read_bytes()[:2000])
    (root / "test" / "cy-1.wav").unlink()
    code, out, err = superb("check", "toy", "--data-root", root, "-q")
    assert (code, err) == (1, "")
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0].endswith("5 errors, 2 warnings")
    start = lines.index(next(line for line in lines if line.startswith("error: truncated")))
    assert lines[start + 1 : start + 6] == [
        "train: 4",
        "train/ada-0.wav",
        "train/ada-1.wav",
        "train/ben-0.wav",
        "… and 1 more; --json lists all",
    ]
    assert "test: test/cy-1.wav" in lines


def test_json_holds_every_item(superb, corpora, root):
    for path in (root / "train").glob("*.wav"):
        path.write_bytes(wav(1, rate=8_000))
    code, out, _ = superb("check", "toy", "--data-root", root, "--json", "-q")
    found = json.loads(out)
    assert (code, found["errors"], found["warnings"]) == (0, 0, 5)
    assert found["splits"]["train"]["official"] == {
        "utterances": 4_000,
        "speakers": 2,
        "hours": 1.5,
    }
    rate, partial = found["findings"]
    assert (rate["kind"], rate["level"], rate["split"]) == ("wrong rate", "warning", "train")
    assert [item["name"] for item in rate["items"]] == [
        f"train/{name}.wav" for name in ("ada-0", "ada-1", "ben-0", "ben-1")
    ]
    assert rate["items"][0]["detail"] == "8000 Hz, not 16000 Hz"
    assert partial["kind"] == "partial"
    assert found["notes"] == ["not there: other"]


def test_quick_does_not_decode(superb, corpora, root):
    path = root / "train" / "ada-0.wav"
    path.write_bytes(path.read_bytes()[:2000])
    code, out, _ = superb("check", "toy", "--data-root", root, "--quick", "-q")
    assert code == 0
    assert "note: quick: headers only" in out


def manifest(root: Path, extra: str = "") -> Path:
    path = root / "mine.csv"
    rows = [
        f"{split}/{name}.wav,{split},{name[:-2]},some words"
        for split, names in (("train", ("ada-0", "ada-1", "ben-0")), ("test", ("cy-0", "cy-1")))
        for name in names
    ]
    path.write_text("\n".join(["audio,split,speaker,text", *rows, extra]) + "\n")
    return path


def test_a_manifest_of_ones_own(superb, root):
    path = manifest(root)
    code, out, _ = superb("check", path, "--downstream", "asr", "-q")
    assert code == 0
    assert "nothing found wrong" in out
    assert "no valid split given" in " ".join(out.split())
    (root / "train" / "ben-0.wav").write_bytes(b"")
    code, out, _ = superb("check", path, "-q")
    assert code == 1
    assert "train/ben-0.wav (0 bytes)" in out


@pytest.mark.parametrize(
    ("extra", "task", "says"),
    [
        ("train/gone.wav,train,ada,x", [], "missing audio files: line 7"),
        ("train/ben-1.wav,train,ben,", ["-d", "asr"], "empty 'text': line 7"),
        ("", ["-d", "ks"], "lacks the column label"),
        ("train/ben-1.wav,dev,ben,x", [], "write valid for dev"),
    ],
)
def test_faults_of_a_manifest_are_the_readers(superb, root, extra, task, says):
    code, out, err = superb("check", manifest(root, extra), *task, "-q")
    assert (code, out) == (2, "")
    assert says in " ".join(err.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "toi"], "Did you mean toy"),
        (["check", "toy"], "add --data-root FOLDER, where it lies. Record it."),
        (["check", "toy", "--data-root", "nowhere"], "nowhere is no folder"),
        (["check", "toy", "--data-root", "."], "no toy corpus in"),
        (["check", "toy", "--data-root", ".", "-d", "asr"], "Leave it out"),
        (["check", "gone.tsv"], "no manifest at gone.tsv"),
        (["check", "gone.tsv", "-d", "asd"], "Known: asr, asv, er, ic, ks, pr, qbe, sd, sf, sid."),
        (["check", "mini"], "nothing to check"),
        (["download", "mini"], "nothing to check or to download"),
        (["download", "toi"], "Did you mean toy"),
        (["download", "toy"], "give --data-root"),
        (["download", "asked"], "cannot be downloaded automatically. Ask its owners."),
        (["download", "toy", "--data-root", "x", "--split", "tset"], "Did you mean test"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_two(
    superb, corpora, tmp_path, monkeypatch, words, says
):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    code, out, err = superb(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in " ".join(err.split())
    assert list(empty.iterdir()) == []


def test_a_download_says_how_to_check_it_and_then_has_nothing_to_do(
    superb, corpora, tmp_path, monkeypatch
):
    root = tmp_path / "my data"
    code, out, err = superb("download", "toy", "--data-root", root, "--split", "test,", "-q")
    assert code == 0
    assert (root / "test" / "cy-1.wav").read_bytes() == wav(sum(b"cy-1"))
    assert "test: unpacked in" in out
    assert out.splitlines()[-1] == f"  superb data check toy --data-root '{root}'"
    assert "not verified" in err
    code, out, _ = superb("download", "toy", "--data-root", root)
    assert code == 0
    assert out.startswith("all there already")
    assert superb("check", "toy", "--data-root", root, "-q")[0] == 0


def test_ctrl_c_ends_with_130_and_says_what_is_kept(superb, corpora, tmp_path, monkeypatch):
    from downstreams.corpora import download

    def interrupted(response: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_read", interrupted)
    code, out, err = superb("download", "toy", "--data-root", tmp_path / "data", "-q")
    assert (code, out) == (130, "")
    assert "the same command goes on with it" in " ".join(err.split())


@pytest.mark.parametrize("name", [name for name, entry in CORPORA.items() if entry.layout])
def test_every_layout_can_be_checked_and_either_downloaded_or_asked_for(name):
    layout = data.layout_of(name)
    assert isinstance(layout, Layout)
    assert layout.obtain
    for archive in layout.archives:
        assert set(archive.splits) <= set(layout.official)
        assert archive.sha256 is None or re.fullmatch("[0-9a-f]{64}", archive.sha256)
        assert file_name(archive)


def test_help_needs_no_audio_library():
    program = (
        "import sys; from superb.cli import app; "
        "app(['data', '--help'], standalone_mode=False); "
        "print([name for name in ('numpy', 'soundfile', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "download" in done.stdout
