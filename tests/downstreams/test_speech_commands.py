"""Speech Commands: the rule of its splits, the silence that is made, and its own lists."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmark.encoding.audio import decode
from benchmark.errors import AudioError, SuperbError
from downstreams.corpora import CorpusOptions, speech_commands
from downstreams.corpora.check import audit
from downstreams.corpora.load import load_corpus
from downstreams.corpora.speech_commands import KEYWORDS, SILENCE, UNKNOWN, part, silence
from downstreams.load import load_downstream

KS = load_downstream("ks").card
# Names of real recordings, with the last 27 bits of the SHA-1 of what is before _nohash_ as
# sha1sum gives it, divided by 2 ** 27 - 1.
PERCENTAGES = {
    "439c84f4_nohash_0.wav": ("valid", 1.2318),
    "a69b9b3e_nohash_0.wav": ("valid", 4.8811),
    "5828dfa2_nohash_1.wav": ("testing", 10.1628),
    "bb05582b_nohash_3.wav": ("testing", 18.1327),
    "f17d21b5_nohash_0.wav": ("testing", 19.0541),
    "0a7c2a8d_nohash_0.wav": ("train", 56.8364),
    "004ae714_nohash_1.wav": ("train", 79.5749),
}
SHA1 = {
    "bb05582b": "de731d862bd4814583c1753eb6da8e82d1735b75",
    "a69b9b3e": "cb643f64b62592137a94ad9402740b2ae863f723",
    "0a7c2a8d": "3b5ddddc702b2b3d25fceb63bd1c81c6fc8c025b",
}
# Speakers of _unknown_ in the published test sets: whom the rule must call testing.
TESTED = (
    *("a4383927", "85d2ac4b", "82b99576", "f292725f", "0c40e715", "5828dfa2", "f17d21b5"),
    *("220ee1ef", "475b61f1", "7add4c5f", "8fe52b97", "dfdabe19", "d1bf406b", "283d7a53"),
    *("3659fc1c", "9dc1889e", "8c0e5970", "a80f9f53", "4a0e2c16", "ea37ca08", "5744b6a7"),
    *("a2473d62", "d7467392", "9d171fee"),
)
TRAIN = ("0a7c2a8d", "004ae714", "00176480", "c50f55b8")
VALID = ("439c84f4", "a69b9b3e", "026290a7")
NOISES = {"doing_the_dishes.wav": 12.0, "pink_noise.wav": 20.0, "white_noise.wav": 31.4567}
WORDS_V1 = (*KEYWORDS, "bed", "bird", "zero")


def wav(seconds: float, value: float = 0.1) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full(round(seconds * 16_000), value), 16_000, format="WAV")
    return buffer.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def make_v1(root, noises=NOISES):
    """Both archives: every word by every speaker, with those that the rule leaves out."""
    words = root / "speech_commands_v0.01"
    for word in WORDS_V1:
        for speaker in (*TRAIN, *VALID, *TESTED[:2]):
            write(words / word / f"{speaker}_nohash_0.wav", wav(0.01))
    for name, seconds in noises.items():
        # A ramp: every sample says where it is from.
        ramp = np.arange(round(seconds * 16_000), dtype=np.float64) / 1e6
        path = words / "_background_noise_" / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, ramp, 16_000, subtype="FLOAT")
    (words / "_background_noise_" / "README.md").write_text("sources")
    (words / "validation_list.txt").write_text("bed/0a7c2a8d_nohash_0.wav\n")  # not looked at
    tests = root / "speech_commands_test_set_v0.01"
    for word in KEYWORDS:
        for speaker in TESTED[:3]:
            write(tests / word / f"{speaker}_nohash_0.wav", wav(0.01))
    write(tests / UNKNOWN / "wow_a4383927_nohash_0.wav.wav", wav(0.01))
    write(tests / SILENCE / "1035.wav", wav(0.01))
    return root


def make_v2(root):
    """A tree whose lists follow the rule, as the published ones do."""
    folder = root / "speech_commands_v0.02"
    lists = {"valid": [], "testing": [], "train": []}
    for word in ("backward", "bed", "yes"):
        for speaker in (*TRAIN, *VALID, *TESTED[:4]):
            name = f"{speaker}_nohash_0.wav"
            write(folder / word / name, wav(0.01))
            lists[part(name)].append(f"{word}/{name}\n")
    (folder / "validation_list.txt").write_text("".join(lists["valid"]))
    (folder / "testing_list.txt").write_text("".join(lists["testing"]))
    write(folder / "_background_noise_" / "pink_noise.wav", wav(3))
    return root


def load(root, version="v1", **splits):
    return load_corpus(f"speech-commands-{version}", KS, CorpusOptions(root, splits))


# The rule


@pytest.mark.parametrize(("name", "expected"), PERCENTAGES.items())
def test_a_speaker_belongs_to_a_part_by_hash(name, expected):
    speaker = name.split("_")[0]
    split, percentage = expected
    assert part(name) == part(f"{speaker}_nohash_7.wav") == split
    if speaker in SHA1:
        last_27_bits = int(SHA1[speaker][-7:], 16) % 2**27
        assert 100 * last_27_bits / (2**27 - 1) == pytest.approx(percentage, abs=1e-4)
    assert split == ("valid" if percentage < 10 else "testing" if percentage < 20 else "train")


@pytest.mark.parametrize("speaker", TESTED)
def test_the_speakers_of_the_published_test_sets_are_those_that_the_rule_leaves_out(speaker):
    assert part(f"{speaker}_nohash_0.wav") == "testing"


def test_parts_have_the_sizes_they_should():
    parts = Counter(part(f"{number:08x}_nohash_0.wav") for number in range(20_000))
    assert parts["valid"] == pytest.approx(2_000, rel=0.1)
    assert parts["testing"] == pytest.approx(2_000, rel=0.1)


# v0.01


def test_v1_has_twelve_classes_and_leaves_out_its_own_test_part(tmp_path):
    corpus = load(make_v1(tmp_path))
    labels = {
        split: Counter(u.label for u in corpus.split(split)) for split in ("train", "valid", "test")
    }
    assert labels["train"] == {**dict.fromkeys(KEYWORDS, 4), UNKNOWN: 12, SILENCE: 4}
    assert labels["valid"] == {**dict.fromkeys(KEYWORDS, 3), UNKNOWN: 9, SILENCE: 3}
    assert labels["test"] == {**dict.fromkeys(KEYWORDS, 3), UNKNOWN: 1, SILENCE: 1}
    speakers = {split: {u.speaker for u in corpus.split(split)} for split in labels}
    noises = {f"{SILENCE}/{Path(name).stem}" for name in NOISES}
    assert speakers["train"] == {*TRAIN, *noises}
    assert speakers["valid"] == {*VALID, *noises}
    assert speakers["test"] == {*TESTED[:3], f"{SILENCE}/1035"}
    assert len({u.id for u in corpus.utterances}) == len(corpus.utterances)
    assert "train 52 of 51088" in corpus.note
    assert corpus.note.endswith("silence from 3 of 6 background recordings")


def test_v1_as_torchaudio_unpacks_it(tmp_path):
    expected = load(make_v1(tmp_path / "plain")).sha256
    assert load(make_v1(tmp_path / "other/SpeechCommands").parent).sha256 == expected


def test_a_survey_of_v1_opens_no_audio(tmp_path):
    for path in make_v1(tmp_path).rglob("*.wav"):
        path.write_bytes(b"")
    write(tmp_path / "speech_commands_v0.01/bed/odd.wav", b"")
    write(tmp_path / "speech_commands_test_set_v0.01/bed/x_nohash_0.wav", b"")
    survey = speech_commands.survey_v1(tmp_path)
    assert Counter(u.split for u in survey.utterances) == {"train": 52, "valid": 39, "test": 32}
    assert survey.extra == {
        Path("speech_commands_v0.01/bed/odd.wav"): "",
        Path("speech_commands_test_set_v0.01/bed/x_nohash_0.wav"): "test",
    }
    assert survey.notes[0].startswith("26 recordings of speech_commands_v0.01 are in no split")
    assert len(survey.disjoint) == 3


# Silence


def test_silence_is_the_same_every_time_and_shared_by_no_two_splits(tmp_path):
    lengths = {Path(name): round(seconds * 1000) for name, seconds in NOISES.items()}
    train, valid = silence(lengths, "train", 200), silence(lengths, "valid", 20)
    assert train == silence(lengths, "train", 200)
    assert (len(train), len(valid)) == (200, 20)
    assert len({u.id for u in (*train, *valid)}) == 220
    assert Counter(Counter(u.audio for u in train).values()) == {67: 2, 66: 1}
    for path, length in lengths.items():
        border = 0.9 * length / 1000
        ends = [u.span[0] + u.span[1] for u in train if u.audio == path]
        starts = [u.span[0] for u in valid if u.audio == path]
        assert min(u.span[0] for u in train if u.audio == path) == 0
        # up to the border, and from there to the end, to the millisecond
        assert max(ends) <= border + 1e-9
        assert max(ends) == pytest.approx(border, abs=2e-3)
        assert min(starts) >= max(ends)
        assert max(starts) + 1 <= length / 1000 + 1e-9
        gaps = np.diff(sorted(u.span[0] for u in train if u.audio == path))
        assert gaps.max() - gaps.min() < 2e-3


def test_silence_is_as_frequent_as_a_keyword_is_on_average(tmp_path):
    root = make_v1(tmp_path)
    for number in range(40):  # forty more of one word are four more on average
        write(root / f"speech_commands_v0.01/yes/{TRAIN[0]}_nohash_{number + 1}.wav", wav(0.01))
    train = Counter(u.label for u in load(root).split("train"))
    assert (train["yes"], train["no"], train[SILENCE]) == (44, 4, 8)


def test_silence_can_be_decoded_and_is_from_where_it_says(tmp_path):
    for utterance in load(make_v1(tmp_path)).utterances:
        if utterance.span is not None:
            samples = decode(utterance.audio, 16_000, name=utterance.id, span=utterance.span)
            assert len(samples) == 16_000
            assert float(samples[0]) == pytest.approx(utterance.span[0] * 16_000 / 1e6, abs=1e-7)


def test_noise_that_is_too_short_or_no_audio(tmp_path):
    with pytest.raises(SuperbError, match=r"pink_noise\.wav lasts 1\.5 s; silence .* takes 2 s"):
        load(make_v1(tmp_path / "short", {"pink_noise.wav": 1.5}))
    assert load(make_v1(tmp_path / "enough", {"pink_noise.wav": 2.0}))
    root = make_v1(tmp_path / "broken")
    write(root / "speech_commands_v0.01/_background_noise_/white_noise.wav", b"no audio")
    with pytest.raises(AudioError, match=r"cannot read .*white_noise\.wav"):
        load(root)


def test_the_recordings_that_silence_is_cut_from_are_checked_too(tmp_path):
    root = make_v1(tmp_path)
    folder = Path("speech_commands_v0.01/_background_noise_")
    write(root / folder / "pink_noise.wav", wav(20)[:1000])
    survey = speech_commands.survey_v1(root)
    gone = {"dude_miaowing.wav", "exercise_bike.wav", "running_tap.wav"}
    assert survey.missing == dict.fromkeys((folder / name for name in gone), "train")
    found = {finding.kind: finding for finding in audit(survey, {}, root).findings}
    assert [item.name for item in found["truncated"].items] == [str(folder / "pink_noise.wav")]
    assert len(found["missing"].items) == len(gone)


# v0.02


def test_v2_has_its_words_and_its_own_lists(tmp_path):
    corpus = load(make_v2(tmp_path), "v2")
    assert {u.label for u in corpus.utterances} == {"backward", "bed", "yes"}
    assert Counter(u.split for u in corpus.utterances) == {"train": 12, "valid": 9, "test": 12}
    # The lists agree with the rule, here as in the published corpus.
    parts = {"testing": "test"}
    for utterance in corpus.utterances:
        assert utterance.split == parts.get(part(utterance.audio.name), part(utterance.audio.name))
    assert all(utterance.span is None for utterance in corpus.utterances)


def test_v2_goes_by_the_lists_and_says_what_they_name_in_vain(tmp_path):
    folder = make_v2(tmp_path) / "speech_commands_v0.02"
    with (folder / "validation_list.txt").open("a") as file:
        file.write(f"bed/{TRAIN[0]}_nohash_0.wav\nbed/gone_nohash_0.wav\n")
    survey = speech_commands.survey_v2(tmp_path)
    assert survey.missing == {Path("speech_commands_v0.02/bed/gone_nohash_0.wav"): "valid"}
    assert Counter(u.split for u in survey.utterances) == {"train": 11, "valid": 10, "test": 12}


# Errors


def without(path, make=make_v1):
    def prepare(root):
        make(root)
        (root / path).rename(root / "elsewhere")
        return root

    return prepare


@pytest.mark.parametrize(
    ("version", "prepare", "says"),
    [
        ("v1", lambda root: None, "add --data-root FOLDER.*superb data download speech-commands-v"),
        ("v1", lambda root: root, "no Speech Commands in .*it holds nothing"),
        ("v1", lambda root: make_v1(root) / "speech_commands_v0.01", "is itself an archive; give"),
        (
            "v1",
            without("speech_commands_test_set_v0.01"),
            "no recordings of split test .*holds els",
        ),
        ("v1", without("speech_commands_v0.01"), "no recordings of split train and valid"),
        ("v1", without("speech_commands_v0.01/_background_noise_"), "no _background_noise_/"),
        ("v1", make_v2, "it holds speech_commands_v0.02/"),
        ("v2", make_v1, r"wanted speech_commands_v0\.02/; it holds"),
        (
            "v2",
            without("speech_commands_v0.02/testing_list.txt", make_v2),
            r"wanted testing_list\.txt; it holds _background_noise_/",
        ),
    ],
)
def test_errors_say_what_is_there_and_how_to_get_the_rest(tmp_path, version, prepare, says):
    root = prepare(tmp_path)
    with pytest.raises(SuperbError, match=says):
        load(root, version)


def test_a_word_that_train_does_not_have(tmp_path):
    root = make_v2(tmp_path)
    folder = root / "speech_commands_v0.02"
    name = f"zero/{VALID[0]}_nohash_0.wav"
    write(folder / name, wav(0.01))
    with (folder / "validation_list.txt").open("a") as file:
        file.write(name)
    with pytest.raises(SuperbError, match=r"labels that train does not have: 'zero' \(valid\)"):
        load(root, "v2")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_splits_and_task_are_fixed(tmp_path, version):
    with pytest.raises(SuperbError, match="takes no --train-split: its splits are fixed"):
        load(tmp_path, version, train="train")
    loader = getattr(speech_commands, f"load_{version}")
    with pytest.raises(SuperbError, match="unknown task of corpus 'speech-commands-"):
        loader("asr", CorpusOptions(tmp_path))


def test_official_figures_add_up():
    assert sum(split.utterances for split in speech_commands.OFFICIAL_V2.values()) == 105_829
    for layout in (speech_commands.V1, speech_commands.V2):
        named = {split for archive in layout.archives for split in archive.splits}
        assert named == set(layout.official)
        assert all(archive.url.startswith("http://download.tens") for archive in layout.archives)
