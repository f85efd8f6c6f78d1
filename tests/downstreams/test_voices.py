"""The corpus `voices`: what is packed of two corpora, and what each task hears of it."""

import io
import json
import signal
import threading
from collections import Counter, defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from benchmark.encoding.audio import hear
from benchmark.errors import AudioError, SuperbError
from benchmark.progress import Progress
from downstreams.corpora import CorpusOptions, packed
from downstreams.corpora.check import audit
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.corpora.voices import LAYOUT, SPEAKERS, TASKS, WORDS, WORDS_OF, listed
from downstreams.corpora.voices.make import CODECS, make
from downstreams.load import load_downstream
from upstreams.loading.rows import CHECKPOINTS

QUIET = Progress(quiet=True)


def put(path, number, seconds=0.06):
    """Noise between silences, so that speech is found in it, another for each number."""
    wave = np.random.default_rng(number).uniform(-0.3, 0.3, round(seconds * 16_000))
    wave[:80] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, 16_000)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Both corpora under their owners' layouts, with more takes and sentences than are wanted.

    Of the first contributor there is a take ten, a copy as FLAC, and one that a browser named.
    """
    root = tmp_path_factory.mktemp("copies")
    number = 0
    for word in (*WORDS, "zoom in"):
        for who in range(1, 31):
            for take in (1, 2, 3, 4, 10) if who == 1 else (1, 2, 3, 4):
                number += 1
                put(root / f"words/dataset/{word}/{who:08d}_NO_{take:02d}.wav", number)
        put(root / f"words/dataset/{word}/00000001_NO_01.flac", number + 10_000)
        put(root / f"words/dataset/{word}/00000001_NO_01 (1).wav", number + 10_000)
    texts = defaultdict(list)
    for _, part, name in listed():
        speaker, chapter, _ = name.split("-")
        folder = root / f"LibriSpeech/{part}/{speaker}/{chapter}"
        for own in (name, f"{speaker}-{chapter}-9999"):
            number += 1
            put(folder / f"{own}.flac", number, 0.5)
            texts[folder / f"{speaker}-{chapter}.trans.txt"].append(own)
    for path, names in texts.items():
        path.write_text("".join(f"{name} HELLO\n" for name in dict.fromkeys(names)))
    return root


@pytest.fixture(scope="module")
def voices(copies, tmp_path_factory):
    output = tmp_path_factory.mktemp("voices") / "made"
    make([copies], copies / "words", output, "flac", QUIET)
    return output


def load(root, task, **splits):
    downstream = load_downstream(task)
    corpus = load_corpus("voices", downstream.card, CorpusOptions(root, splits))
    check_fits(downstream, corpus)
    return corpus


def of(corpus, split):
    return [u for u in corpus.utterances if u.split == split]


def test_samples_are_those_of_the_copies_and_who_is_to_be_named_lies_beside(copies, voices):
    heard = {u.id: u for u in load(voices, "ks").utterances}
    assert len(heard) == 12 * 30 * 4
    for word, who, take in (("close", 1, 1), ("yes", 28, 4)):
        path = copies / f"words/dataset/{word}/{who:08d}_NO_{take:02d}.wav"
        packed_ = hear(heard[f"{word}-{who:08d}-{take}"].audio, 16_000, name="packed").waveform
        assert (packed_ == hear(path, 16_000, name="copy").waveform).all()
    notice = (voices / "README.md").read_text()
    assert notice.count("CC BY 4.0") == 2
    assert "Ghandoura" in notice
    assert "Panayotov" in notice
    found = audit(LAYOUT.survey(voices), LAYOUT.official, voices, quick=True, progress=QUIET)
    assert not found.errors


def test_cards_of_bundled_encoders_say_whom_of_it_they_heard_and_nobody_in_test_is_among_them():
    speakers = defaultdict(set)
    for split, part, name in listed():
        speakers[part, split].add(name.split("-")[0])
    (known,) = (who for (part, _), who in speakers.items() if part == "dev-clean")
    for card in CHECKPOINTS.glob("*/card.json"):
        content = json.loads(card.read_text())
        assert set(content["audio"]["speakers_of_voices"]) == known
        assert not known & speakers["test-clean", "test"]


def test_keywords_are_of_other_people_in_every_split(voices):
    corpus = load(voices, "ks")
    people = {split: {int(u.speaker) for u in of(corpus, split)} for split in Counter(WORDS_OF)}
    assert {split: people[split] for split in SPEAKERS} == dict(SPEAKERS)
    assert people["train"] == {*range(1, 31)} - people["valid"] - people["test"]
    for split in people:
        assert set(Counter(u.label for u in of(corpus, split)).values()) == {4 * len(people[split])}
    assert "as .flac" in corpus.note


def test_speakers_say_other_words_in_every_split(voices):
    corpus = load(voices, "sid")
    for split, words in WORDS_OF.items():
        assert {u.id.partition("-")[0] for u in of(corpus, split)} == set(words)
        assert set(Counter(u.label for u in of(corpus, split)).values()) == {4 * len(words)}
        assert all(u.label == u.speaker for u in of(corpus, split))


def test_verification_and_diarization_are_tried_on_new_people(voices):
    asv, sd = load(voices, "asv"), load(voices, "sd")
    who = {split: {u.speaker for u in of(asv, split)} for split in WORDS_OF}
    assert [len(who[split]) for split in ("train", "valid", "test")] == [30, 6, 15]
    assert not who["train"] & who["valid"] | who["train"] & who["test"] | who["valid"] & who["test"]
    assert not any(u.label for u in asv.utterances)
    mixed = {split: {s for u in of(sd, split) for s in u.speaker.split("+")} for split in WORDS_OF}
    listed_ = {(split, name.partition("-")[0]) for split, _, name in listed()}
    assert {(split, speaker) for split in mixed for speaker in mixed[split]} == listed_
    assert len(listed_) == len({speaker for _, speaker in listed_}) == 21  # nobody in two splits


def test_documents_hold_what_they_say_and_nobody_asks_for_their_own(voices):
    corpus = load(voices, "qbe")
    clips = {u.id: u for u in load(voices, "ks").utterances}
    documents = [u for u in corpus.utterances if u.value("role") == "document"]
    for split in ("valid", "test"):
        own = of(corpus, split)
        speakers = {
            role: {u.speaker for u in own if u.value("role") == role}
            for role in ("query", "document")
        }
        assert {int(who) for who in speakers["query"]} == SPEAKERS[split]
        assert not speakers["query"] & speakers["document"]
        terms = Counter(
            t for u in own if u.value("role") == "document" for t in u.value("term").split(";")
        )
        assert set(terms) == set(WORDS)
        assert len(set(terms.values())) == 1  # every word in as many documents as another
    first = documents[0]
    wave = hear(first.audio, 16_000, name="document").waveform
    start = 0
    for word in first.value("term").split(";"):
        clip = hear(clips[f"{word}-{first.speaker}-1"].audio, 16_000, name=word).waveform
        part = wave[start : start + len(clip)]
        start += len(clip)
        assert np.corrcoef(part, clip)[0, 1] > 0.98  # fades cost the rest
    assert start == len(wave)


def test_opus_is_small_and_the_same_each_time(copies, tmp_path):
    path = next((copies / "LibriSpeech").rglob("*.flac"))
    wave = hear(path, 16_000, name="copy").waveform.numpy()
    coded = packed.opus(wave)
    assert coded == packed.opus(wave)
    assert len(coded) < len(packed.flac(wave)) / 3
    back, rate = soundfile.read(io.BytesIO(coded))  # which verifies every page
    assert (len(back), rate) == (len(wave), 16_000)


def test_a_page_without_its_head_is_no_recording(monkeypatch):
    whole = soundfile.write

    def losing(buffer, *given, **options):
        whole(part := io.BytesIO(), *given, **options)
        pages = part.getvalue().split(b"OggS")
        buffer.write(b"OggS".join(pages[:-1]) + pages[-1][40:])

    monkeypatch.setattr(soundfile, "write", losing)
    with pytest.raises(SuperbError, match="not coded whole"):
        packed.opus(np.random.default_rng(0).uniform(-0.1, 0.1, 16_000))


def test_other_tasks_splits_and_folders_are_refused(voices, tmp_path):
    for task in ("asr", "er"):
        with pytest.raises(SuperbError, match="does not serve"):
            load(voices, task)
    with pytest.raises(SuperbError, match="takes no --train-split"):
        load(voices, "ks", train="words")
    with pytest.raises(SuperbError, match=r"wanted words.parquet .* superb data voices"):
        load(tmp_path, "ks")
    with pytest.raises(SuperbError, match=r"add --data-root FOLDER"):
        load(None, "ks")


def change(row, **cells):
    return [row | cells]


@pytest.mark.parametrize(
    ("task", "file", "changed", "message"),
    [
        ("ks", "words", lambda row: [], "1439 recordings, of which 1439 are among the 1440"),
        ("ks", "words", lambda row: [row, row], "1441 recordings"),
        ("sid", "words", lambda row: change(row, word="ja"), "of which 1439 are among"),
        ("ks", "words", lambda row: change(row, speaker="anna"), "of which 1439 are among"),
        ("qbe", "words", lambda row: change(row, milliseconds="1 s"), "lasts '1 s'"),
        ("ks", "words", lambda row: change(row, audio=None), "has an empty cell"),
        ("ks", "words", lambda row: change(row, audio={"bytes": None, "path": "a"}), "empty cell"),
        ("ks", "words", lambda row: change(row, word=None), "has an empty cell"),
        ("asv", "sentences", lambda row: change(row, utterance="1-2-3"), "of which 329 are among"),
    ],
)
def test_files_that_lack_something_or_hold_something_else_are_refused(
    voices, tmp_path, task, file, changed, message
):
    for name in ("words", "sentences"):
        rows = pq.read_table(voices / f"{name}.parquet").to_pylist()
        if name == file:
            rows[7:8] = changed(rows[7])
        packed.write(tmp_path / f"{name}.parquet", rows)
    with pytest.raises(SuperbError, match=message):
        load(tmp_path, task)


def test_a_file_that_is_no_table_is_refused_and_rows_may_stand_in_any_order(voices, tmp_path):
    for name in ("words", "sentences"):
        rows = pq.read_table(voices / f"{name}.parquet").to_pylist()
        packed.write(tmp_path / f"{name}.parquet", rows[::-1])
    for task in TASKS:
        assert load(tmp_path, task).sha256 == load(voices, task).sha256
    (tmp_path / "words.parquet").write_bytes((voices / "sentences.parquet").read_bytes())
    with pytest.raises(SuperbError, match="has no column take and word"):
        load(tmp_path, "ks")
    (tmp_path / "words.parquet").write_bytes(b"no table")
    with pytest.raises(SuperbError, match=r"cannot read .*words.parquet"):
        load(tmp_path, "ks")


def linked(copies, tmp_path):
    """A copy whose files may be taken away."""
    for name in ("words", "LibriSpeech"):
        (tmp_path / name).mkdir(parents=True)
        for path in (copies / name).rglob("*.*"):
            own = tmp_path / name / path.relative_to(copies / name)
            own.parent.mkdir(parents=True, exist_ok=True)
            own.hardlink_to(path)
    return tmp_path


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("words/dataset/up/00000009_NO_03.wav", "lacks up/00000009_NO_03.wav. Arabic"),
        ("words/dataset/up/*", "lacks up/00000001_NO_01.wav, .* and 117 more"),
        ("words/dataset/close", "wanted a folder 'close'"),
        ("LibriSpeech/test-clean/908/157963/*", "lacks test-clean/908-157963-0005, .* and 7 more"),
        (
            "LibriSpeech/test-clean",
            "lacks test-clean/61-70968-0000, .* --split dev-clean,test-clean",
        ),
        ("LibriSpeech/*", "no LibriSpeech in"),
    ],
)
def test_a_copy_that_lacks_something_makes_nothing(copies, tmp_path, gone, message):
    root = linked(copies, tmp_path / "copy")
    for path in list(root.glob(gone)):
        path.rename(tmp_path / path.name)
    with pytest.raises(SuperbError, match=message):
        make([root], root / "words", tmp_path / "voices", "flac", QUIET)
    assert not (tmp_path / "voices").exists()


def test_what_is_there_stays_and_half_a_corpus_is_never_left(copies, voices, tmp_path):
    before = {path: path.read_bytes() for path in voices.iterdir()}
    with pytest.raises(SuperbError, match=r"words.parquet, .* would be overwritten"):
        make([copies], copies / "words", voices, "flac", QUIET)
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SuperbError, match=r"cannot be written: .* --output"):
            make([copies], copies / "words", bad, "flac", QUIET)
    with pytest.raises(SuperbError, match="codec 'mp3'"):
        make([copies], copies / "words", tmp_path / "voices", "mp3", QUIET)
    assert {path: path.read_bytes() for path in voices.iterdir()} == before
    root = linked(copies, tmp_path / "copy")
    _, part, name = listed()[-1]
    last = next((root / "LibriSpeech" / part).rglob(f"{name}.flac"))
    last.unlink()
    last.write_bytes(b"no audio")
    with pytest.raises(AudioError, match=name):
        make([root], root / "words", tmp_path / "voices", "flac", QUIET)
    assert not [*(tmp_path / "voices").iterdir()]
    last.unlink()
    put(last, 0, 0.5)
    make([root], root / "words", tmp_path / "voices", "flac", QUIET)
    assert len([*(tmp_path / "voices").iterdir()]) == 3


def test_an_interrupt_ends_it_and_comes_in_no_thread_that_codes(copies, tmp_path, monkeypatch):
    """libsndfile writes through Python, which drops what is raised there, and the page with it."""
    coding = set()

    def coded(wave):
        coding.add(threading.current_thread())
        if len(coding) == 1:
            signal.raise_signal(signal.SIGINT)
        return packed.flac(wave)

    monkeypatch.setitem(CODECS, "flac", (".flac", coded))
    with pytest.raises(KeyboardInterrupt):
        make([copies], copies / "words", tmp_path / "voices", "flac", QUIET)
    assert coding
    assert threading.main_thread() not in coding
    assert not [*(tmp_path / "voices").iterdir()]
