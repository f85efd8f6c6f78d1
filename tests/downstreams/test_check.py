"""Every planted fault is found and named with its file, and nothing else is."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.core import Corpus, Utterance
from benchmark.errors import SuperbError
from benchmark.progress import Progress
from downstreams.corpora import check
from downstreams.corpora.check import KINDS, audit, survey_corpus
from downstreams.corpora.layout import Official, Survey

RATE = 16_000
SPEAKERS = {"train": ("ada", "ben"), "test": ("cy", "dora")}


def noise(seed: int, level: float = 0.1, seconds: float = 0.25) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (level * random.uniform(-1, 1, int(seconds * RATE))).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> None:
    soundfile.write(path, samples, rate, subtype=subtype)


def transcripts(folder: Path) -> dict[str, str]:
    lines = (folder / "transcripts.txt").read_text().splitlines()
    return dict(line.partition(" ")[::2] for line in lines)


def survey(root: Path) -> Survey:
    """SPLIT/SPEAKER-TAKE.wav, with SPLIT/transcripts.txt."""
    utterances, missing, extra = [], {}, {}
    for folder in sorted(root.iterdir()):
        texts = transcripts(folder)
        for path in sorted(folder.glob("*.wav")):
            if path.name in texts:
                speaker = path.name.partition("-")[0]
                identity = f"{folder.name}/{path.stem}"
                utterances.append(
                    Utterance(identity, path, folder.name, speaker, texts.pop(path.name))
                )
            else:
                extra[path.relative_to(root)] = folder.name
        missing |= {Path(folder.name, name): folder.name for name in texts}
    return Survey(tuple(utterances), missing, extra, RATE, disjoint=(("train", "test"),))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, speakers in SPEAKERS.items():
        folder = tmp_path / split
        folder.mkdir()
        names = [f"{speaker}-{take}.wav" for speaker in speakers for take in range(2)]
        (folder / "transcripts.txt").write_text("".join(f"{name} some words\n" for name in names))
        for name in names:
            write(folder / name, noise(len(name) + sum(name.encode())))
    return tmp_path


def findings(root: Path, **options: object) -> list[tuple[str, str, list[str]]]:
    found = audit(survey(root), {}, root, **options).findings
    return [(each.kind, each.split, [item.name for item in each.items]) for each in found]


def test_a_sound_corpus_has_no_findings_and_right_figures(root):
    outcome = audit(survey(root), {"train": Official(4, 2), "test": Official(4)}, root)
    assert outcome.findings == outcome.notes == ()
    train = outcome.splits["train"]
    assert (train.utterances, train.speakers) == (4, 2)
    assert train.hours == pytest.approx(4 * 0.25 / 3600)
    assert (outcome.errors, outcome.warnings) == (0, 0)


def drop_audio(path: Path) -> None:
    path.unlink()


def drop_transcript(path: Path) -> None:
    table = path.parent / "transcripts.txt"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if path.name not in line))


def empty_transcript(path: Path) -> None:
    table = path.parent / "transcripts.txt"
    table.write_text(table.read_text().replace(f"{path.name} some words", f"{path.name} "))


def cut_wav(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4000])


def cut_flac(path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(1), RATE, format="FLAC")
    path.write_bytes(buffer.getvalue()[:3000])


def one_nan(path: Path) -> None:
    samples = noise(2)
    samples[7] = np.nan
    write(path, samples, subtype="FLOAT")


def clip(path: Path) -> None:
    samples = noise(3)
    samples[:8] = 1.0  # 0.2 % of 4,000
    write(path, samples)


@pytest.mark.parametrize(
    ("plant", "kind", "error"),
    [
        (drop_audio, "missing", True),
        (drop_transcript, "extra", False),
        (empty_transcript, "no transcript", True),
        (lambda path: path.write_bytes(b""), "empty", True),
        (lambda path: write(path, np.zeros(0)), "empty", True),
        (cut_wav, "truncated", True),
        (cut_flac, "undecodable", True),
        (lambda path: path.write_bytes(b"no audio at all, but text\n" * 9), "undecodable", True),
        (one_nan, "not finite", True),
        (lambda path: write(path, noise(4), 8_000), "wrong rate", False),
        (clip, "clipped", False),
        (lambda path: write(path, np.zeros(4000)), "silent", False),
        (lambda path: write(path, noise(5, level=0.0003)), "silent", False),
    ],
)
def test_a_planted_fault_is_found_and_nothing_else(root, plant, kind, error):
    path = root / "train" / "ben-1.wav"
    plant(path)
    name = "train/ben-1" if kind == "no transcript" else "train/ben-1.wav"
    assert findings(root) == [(kind, "train", [name])]
    assert KINDS[kind].error is error


def test_loud_and_quiet_speech_is_neither_clipped_nor_silent(root):
    samples = noise(6)
    samples[:3] = 1.0  # 0.075 %
    write(root / "train" / "ada-0.wav", samples)
    write(root / "train" / "ada-1.wav", noise(7, level=0.003))  # -55 dB
    assert findings(root) == []


def test_the_same_bytes_in_train_and_test_are_a_duplicate_named_with_its_twin(root):
    (root / "test" / "dora-0.wav").write_bytes((root / "train" / "ada-1.wav").read_bytes())
    (found,) = audit(survey(root), {}, root).findings
    assert (found.kind, found.split) == ("duplicate", "test + train")
    assert (found.items[0].name, found.items[0].detail) == (
        "train/ada-1.wav",
        "= test/dora-0.wav",
    )


def test_the_same_bytes_twice_in_one_split_are_no_leak(root):
    (root / "test" / "dora-0.wav").write_bytes((root / "test" / "dora-1.wav").read_bytes())
    assert findings(root) == []


def test_spans_of_one_recording_are_different_audio(root):
    found = survey(root)
    first = found.utterances[0]
    train, test = (
        replace(first, id=split, split=split, span=(start, 0.1))
        for split, start in (("train", 0.0), ("test", 0.1))
    )
    halves = replace(found, utterances=(train, test), disjoint=())
    outcome = audit(halves, {}, root)
    assert outcome.findings == ()
    assert outcome.splits["test"].hours == pytest.approx(0.1 / 3600)
    leak = replace(halves, utterances=(train, replace(test, span=train.span)))
    assert [each.kind for each in audit(leak, {}, root).findings] == ["duplicate"]


def test_a_speaker_in_two_splits_is_named_unless_that_is_meant(root):
    for take in range(2):
        (root / "test" / f"cy-{take}.wav").rename(root / "test" / f"ben-{take}.wav")
    table = root / "test" / "transcripts.txt"
    table.write_text(table.read_text().replace("cy-", "ben-"))
    assert findings(root) == [("shared speaker", "train + test", ["ben"])]
    assert audit(replace(survey(root), disjoint=()), {}, root).findings == ()


@pytest.mark.parametrize(
    ("official", "kind", "says"),
    [
        (Official(7, 3), "partial", "4 of 7 utterances, 2 of 3 speakers"),
        (Official(4, 3), "partial", "4 of 4 utterances, 2 of 3 speakers"),
        (Official(3), "not official", "4 of 3 utterances"),
        (Official(4, 2, 1.5), "not official", "0.00 of 1.5 hours, in 4 of 4 utterances"),
    ],
)
def test_figures_are_held_against_the_official_ones(root, official, kind, says):
    outcome = audit(survey(root), {"train": official}, root)
    (found,) = outcome.findings
    assert (found.kind, found.split, outcome.errors, outcome.warnings) == (kind, "train", 0, 1)
    assert found.items[0].name.startswith(says)


def test_hours_may_differ_by_rounding():
    assert check._same_hours(5.45, 5.4)
    assert check._same_hours(98.9, 100.6)
    assert not check._same_hours(97.0, 100.6)
    assert not check._same_hours(5.2, 5.4)


def test_an_official_split_that_is_not_there_is_only_noted(root):
    outcome = audit(survey(root), {"train": Official(4), "other": Official(9)}, root)
    assert outcome.findings == ()
    assert outcome.notes == ("not there: other",)
    assert list(outcome.splits) == ["train", "test"]


def test_errors_come_first_and_every_item_is_kept(root):
    for name in ("ada-0", "ada-1", "ben-0", "ben-1"):
        write(root / "train" / f"{name}.wav", np.zeros(4000))
    (root / "test" / "cy-0.wav").unlink()
    expected = [f"train/{name}.wav" for name in ("ada-0", "ada-1", "ben-0", "ben-1")]
    assert findings(root) == [
        ("missing", "test", ["test/cy-0.wav"]),
        ("silent", "train", expected),
    ]


def test_quick_reads_names_and_headers_only(root, monkeypatch):
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(check, "hear", refuse)
    monkeypatch.setattr(check, "audio_sha256", refuse)
    one_nan(root / "train" / "ada-0.wav")  # not in the header
    write(root / "train" / "ada-1.wav", np.zeros(0))
    write(root / "train" / "ben-0.wav", noise(4), 8_000)
    (root / "test" / "cy-0.wav").unlink()
    (root / "test" / "cy-1.wav").write_bytes(b"text\n")
    assert findings(root, quick=True) == [
        ("missing", "test", ["test/cy-0.wav"]),
        ("empty", "train", ["train/ada-1.wav"]),
        ("undecodable", "test", ["test/cy-1.wav"]),
        ("wrong rate", "train", ["train/ben-0.wav"]),
    ]
    outcome = audit(survey(root), {}, root, quick=True)
    assert "nothing was decoded" in outcome.notes[-1]
    assert outcome.splits["train"].hours == pytest.approx((0.25 + 0.5 + 0.25) / 3600)


def test_a_file_that_goes_away_meanwhile_is_missing(root):
    before = survey(root)
    (root / "train" / "ada-0.wav").unlink()
    (found,) = audit(before, {}, root).findings
    assert (found.kind, found.items[0].name) == ("missing", "train/ada-0.wav")


def test_more_files_than_are_under_way_at_a_time_keep_their_order(root, monkeypatch):
    monkeypatch.setattr(check, "_CHUNK", 3)
    for path in root.glob("*/*.wav"):
        write(path, np.zeros(4000) if path.parent.name == "train" else noise(9))
    (silent,) = audit(survey(root), {}, root).findings
    assert [item.name[6:11] for item in silent.items] == ["ada-0", "ada-1", "ben-0", "ben-1"]


def test_a_folder_without_audio_is_bad_input(root):
    with pytest.raises(SuperbError, match="no audio in"):
        audit(Survey(()), {}, root)


class Stored:
    """Audio inside another file, read when it is needed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.origin = None
        self.far = False

    @property
    def size(self) -> int:
        return len(self._data)

    def read(self) -> bytes:
        return self._data


@pytest.mark.parametrize("wrap", [bytes, Stored])
def test_audio_without_a_file_is_named_by_its_utterance(root, wrap):
    sound, broken = (wrap(data) for data in ((root / "train" / "ada-0.wav").read_bytes(), b"text"))
    utterances = (Utterance("a", sound, "train"), Utterance("b", broken, "train"))
    (found,) = audit(Survey(utterances), {}, root).findings
    assert (found.kind, found.items[0].name) == ("undecodable", "b")


def test_own_data_are_told_of_speakers_in_train_and_test_but_not_blamed(root):
    audio = root / "train" / "ada-0.wav"
    utterances = tuple(
        Utterance(f"{split}-{speaker}", audio, split, speaker)
        for split, speaker in (("train", "x"), ("train", ""), ("test", "x"), ("test", "y"))
    )
    corpus = Corpus("mine", "", utterances, note="carved")
    carved, shared = survey_corpus(corpus, speakers_recur=False).notes
    assert carved == "carved"
    assert shared.startswith("1 of 2 speakers in test are in train too")
    assert survey_corpus(corpus, speakers_recur=True).notes == ("carved",)


def test_progress_is_reported(root, capsys):
    audit(survey(root), {}, root, progress=Progress())
    assert "checking audio: 8/8" in capsys.readouterr().err
