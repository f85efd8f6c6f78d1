"""Mixtures of single speakers: what their segments say is what is heard."""

import io
import os
import pickle
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.core import SPLITS, StoredAudio, Utterance
from benchmark.encoding.audio import decode
from benchmark.errors import LacksError, SuperbError
from downstreams import diarization
from downstreams.corpora import CorpusOptions, mini
from downstreams.corpora.check import audit, survey_corpus
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.corpora.mixtures import Mixture, Part, Recipe, mixed, voiced
from downstreams.sd import Sd

RATE = 16_000
RECIPE = Recipe({"train": 8, "valid": 4, "test": 6})


def wav(seed=0, seconds=1.0, before=0.3, after=0.2, rate=RATE, background=1e-3):
    """Noise as speech, between softer noise, as the bytes of a file."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, background, round((before + seconds + after) * rate))
    first = round(before * rate)
    signal[first : first + round(seconds * rate)] += rng.normal(0, 0.1, round(seconds * rate))
    buffer = io.BytesIO()
    soundfile.write(buffer, signal, rate, format="WAV")
    return buffer.getvalue()


def single(speakers=3, each=4, make=lambda name, seed: wav(seed)):
    return [
        Utterance(
            f"{split}-{who}-{n}",
            make(f"{split}{who}{n}", 100 * i + 10 * who + n),
            split,
            f"{split}{who}",
        )
        for i, split in enumerate(SPLITS)
        for who in range(speakers)
        for n in range(each)
    ]


def in_files(tmp_path, **options):
    def make(name, seed):
        path = tmp_path / f"{name}.wav"
        path.write_bytes(wav(seed))
        return path

    return single(make=make, **options)


def test_speech_lies_between_the_background():
    first, length = voiced(Utterance("a", wav(), "train"), 4.0)
    assert abs(first - 300) <= 10
    assert abs(length - 1000) <= 20
    assert voiced(Utterance("a", wav(), "train"), 0.5) == (first, 500)
    # of a span, in the time of the recording
    assert voiced(Utterance("a", wav(), "train", span=(0.5, 0.6)), 4.0)[0] >= 500
    assert voiced(Utterance("a", wav(seconds=0.1), "train"), 4.0) is None
    silent = io.BytesIO()
    soundfile.write(silent, np.zeros(RATE), RATE, format="WAV")
    assert voiced(Utterance("a", silent.getvalue(), "train"), 4.0) is None


def test_a_mixture_is_the_sum_of_its_parts_where_its_segments_say():
    parts = (
        Part("a", "ann", wav(1), 300, 1000, 100, 0.0),
        Part("b", "ben", wav(2, rate=22_050), 300, 1000, 800, -5.0),
    )
    mixture = Mixture(parts, 2000, 300)
    assert isinstance(mixture, StoredAudio)
    data = mixture.read()
    assert len(data) == mixture.size
    assert data == mixture.read() == pickle.loads(pickle.dumps(mixture)).read()
    sound, rate = soundfile.read(io.BytesIO(data))
    assert (rate, len(sound) / rate) == (RATE, mixture.seconds)
    level = np.sqrt(np.square(sound.reshape(-1, RATE // 10)).mean(1))  # per 100 ms
    assert level[[0, 18, 19]].max() == 0
    alone, both, other = level[2:7].mean(), level[8:11].mean(), level[12:17].mean()
    assert 20 * np.log10(other / alone) == pytest.approx(-5, abs=0.5)
    assert both**2 == pytest.approx(alone**2 + other**2, rel=0.1)
    assert mixture.segments == ((("ann", 0.1, 1.1)), ("ben", 0.8, 1.8))


def test_a_hole_and_what_does_not_fit_are_refused():
    part = Part("a", "ann", b"", 0, 1000, 0, 0.0)
    Mixture((part, replace(part, start_ms=1300)), 2600, 300)
    for start, length in ((1301, 2500), (1300, 2601)):
        with pytest.raises(SuperbError, match="nobody speaks from"):
            Mixture((part, replace(part, start_ms=start)), length, 300)
    with pytest.raises(SuperbError, match="cannot hold a from 0 to 1000 ms"):
        Mixture((part,), 999, 300)


def test_recipes_are_kept_and_repeat():
    utterances = single()
    found, note = mixed("here", utterances, "c", RECIPE)
    again, _ = mixed("here", utterances, "c", RECIPE)
    assert [(u.id, u.columns) for u in found] == [(u.id, u.columns) for u in again]
    other, _ = mixed("here", utterances, "d", RECIPE)
    assert [u.columns for u in found] != [u.columns for u in other]
    assert Counter(u.split for u in found) == RECIPE.mixtures
    assert note.startswith("mixtures made of single speakers (train 8, valid 4, test 6): 1 to 3")
    Sd().check_data(found)
    overlaps = 0
    for utterance in found:
        audio = utterance.audio
        segments = diarization.read(utterance.value("segments"))
        assert segments == audio.segments
        names = diarization.speakers(segments)
        assert utterance.speaker == "+".join(names)
        assert all(name.startswith(utterance.split) for name in names)
        for name in names:  # nobody speaks over themselves
            own = sorted(s for s in segments if s.speaker == name)
            assert 1 <= len(own) <= 3
            assert all(a.end_s < b.start_s for a, b in pairwise(own))
        active = diarization.in_milliseconds(segments)
        overlaps += bool((active.sum(1) == 2).any())
        assert len({part.utterance for part in audio.parts}) == len(audio.parts)
        assert audio.segments[0].start_s >= 0.1
    assert 0 < overlaps < len(found)


def test_utterances_are_heard_about_equally_often():
    found, _ = mixed("here", single(), "c", RECIPE)
    heard = Counter(p.utterance for u in found if u.split == "train" for p in u.audio.parts)
    assert len(heard) == 12
    assert max(heard.values()) - min(heard.values()) <= 1
    # no more mixtures than utterances
    few, _ = mixed("here", single(2, 1), "c", RECIPE)
    assert Counter(u.split for u in few) == {"train": 2, "valid": 2, "test": 2}


def test_audio_is_read_once_for_its_speech_and_then_only_when_it_is_heard(tmp_path):
    found, _ = mixed("here", in_files(tmp_path), "c", RECIPE)
    known = {p.utterance: (p.first_ms, p.length_ms) for u in found for p in u.audio.parts}
    for path in tmp_path.iterdir():
        path.unlink()
    again, _ = mixed("here", [replace(u, audio=Path("gone")) for u in single()], "c", RECIPE, known)
    assert [u.columns for u in again] == [u.columns for u in found]
    with pytest.raises(SuperbError, match="no audio file"):
        decode(found[0].audio, RATE, name="x")


def test_what_stands_for_the_bytes_follows_the_files(tmp_path):
    found, _ = mixed("here", in_files(tmp_path), "c", RECIPE)
    origins = {u.audio.origin for u in found}
    assert len(origins) == len(found)
    mixture = found[0].audio
    before = mixture.origin
    assert mixture.origin == before
    name, changed = before
    path = mixture.parts[0].audio
    os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**12))  # older than the other parts
    assert mixture.origin[0] == name
    assert mixture.origin[1] != changed
    path.unlink()
    assert mixture.origin is None
    assert not mixture.far
    in_memory = Mixture((Part("a", "a", wav(), 300, 1000, 0, 0.0),), 1000, 0)
    assert in_memory.origin == replace(in_memory).origin
    assert in_memory.origin[0] != replace(in_memory, length_ms=1001, longest_pause_ms=1).origin[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda u: replace(u, speaker="train0") if u.split == "test" else u,
            "'train0' is in train and in test",
        ),
        (lambda u: replace(u, speaker=u.split), "split train has speech of 1 speakers"),
        (lambda u: replace(u, speaker=f"{u.speaker};"), "have no ';'"),
        (lambda u: replace(u, speaker=""), "the speaker ''"),
    ],
)
def test_what_cannot_be_mixed_is_named(change, message):
    with pytest.raises(LacksError, match=f"here: .*{message}"):
        mixed("here", [change(u) for u in single()], "c", RECIPE)


def test_a_table_of_single_speakers_becomes_mixtures(tmp_path):
    utterances = in_files(tmp_path)
    path = tmp_path / "table.csv"
    rows = [f"{u.audio.name},{u.split},{u.speaker}" for u in utterances]
    path.write_text("\n".join(["audio,split,speaker", *rows]))
    corpus = load_corpus(str(path), Sd.card)
    check_fits(Sd(), corpus)
    assert "mixtures made of single speakers (train 12, valid 12, test 12)" in corpus.note
    assert all(isinstance(u.audio, Mixture) for u in corpus.utterances)
    findings = audit(survey_corpus(corpus, speakers_recur=False), {}, tmp_path).findings
    assert findings == ()
    # segments that are there are taken
    path.write_text(
        "audio,split,segments\n"
        + "\n".join(f"{u.audio.name},{u.split},a 0 1; b 1 1.5" for u in utterances)
    )
    corpus = load_corpus(str(path), Sd.card)
    assert isinstance(corpus.utterances[0].audio, Path)
    path.write_text("audio,split\na.wav,train\n")
    with pytest.raises(SuperbError, match="or give a column speaker, and mixtures are made"):
        load_corpus(str(path), Sd.card)
    path.write_text("\n".join(["audio,fold,speaker", *rows]))
    with pytest.raises(SuperbError, match="not of folds"):
        load_corpus(str(path), Sd.card)


def test_librispeech_becomes_mixtures(tmp_path):
    for split in ("train-clean-100", "dev-clean", "test-clean"):
        for speaker in (f"{len(split)}1", f"{len(split)}2"):
            folder = tmp_path / split / speaker / "7"
            folder.mkdir(parents=True)
            (folder / f"{speaker}-7.trans.txt").write_text(f"{speaker}-7-0 HELLO\n")
            (folder / f"{speaker}-7-0.wav").write_bytes(wav(int(speaker)))
    corpus = load_corpus("librispeech", Sd.card, CorpusOptions(tmp_path))
    check_fits(Sd(), corpus)
    assert Counter(u.split for u in corpus.utterances) == {"train": 2, "valid": 2, "test": 2}
    assert "single speakers" in corpus.note


def test_mini_mixes_its_sentences():
    corpus = mini.load("sd")
    check_fits(Sd(), corpus)
    assert Counter(u.split for u in corpus.utterances) == {"train": 400, "valid": 60, "test": 120}
    assert 6 <= np.mean([u.audio.seconds for u in corpus.utterances]) <= 8
    people = {
        split: {s.speaker for u in corpus.split(split) for s in u.audio.segments}
        for split in SPLITS
    }
    assert sum(map(len, people.values())) == len(set.union(*people.values())) == 60


def test_where_mini_has_speech_is_what_is_found():
    bounds = mini._bounds()
    utterances = mini.load("asr").utterances
    assert set(bounds) == {u.id for u in utterances}
    for utterance in utterances[::150]:
        assert tuple(bounds[utterance.id]) == voiced(utterance, mini.RECIPE.part_s)
