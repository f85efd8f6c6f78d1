"""Libri2Mix: mixtures, segments and speakers from Kaldi's files."""

import io

import numpy as np
import pytest
import soundfile

from benchmark.errors import SuperbError
from downstreams.corpora import CorpusOptions
from downstreams.corpora.check import audit
from downstreams.corpora.libri2mix import LAYOUT
from downstreams.corpora.load import check_fits, load_corpus
from downstreams.sd import Sd

MIXTURES = {
    "train": ("103-1_1034-2", "103-3_1034-4"),
    "dev": ("84-1_174-2",),
    "test": ("61-1_121-2",),
}


def wav(seed):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, 2 * 16_000)
    soundfile.write(buffer, noise, 16_000, format="WAV")
    return buffer.getvalue()


def make(root, written=lambda path: str(path)):
    for seed, (split, names) in enumerate(MIXTURES.items()):
        lists = {"wav.scp": [], "segments": [], "utt2spk": [], "reco2dur": []}
        for number, name in enumerate(names):
            path = root / f"Libri2Mix/wav16k/max/{split}/mix_both/{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wav(10 * seed + number))
            lists["wav.scp"].append(f"{name} {written(path)}")
            lists["reco2dur"].append(f"{name} 2.0")
            for part, times in zip(name.split("_"), ("0.1 0.9", "0.5 1.9"), strict=True):
                segment = f"{name}_{part}"
                lists["segments"].append(f"{segment} {name} {times}")
                lists["utt2spk"].append(f"{segment}\t{part.partition('-')[0]}")
        (root / split).mkdir(exist_ok=True)
        for file, lines in lists.items():
            (root / split / file).write_text("\n".join(lines) + "\n")
    return root


def load(root):
    corpus = load_corpus("libri2mix", Sd.card, CorpusOptions(root))
    check_fits(Sd(), corpus)
    return corpus


@pytest.mark.parametrize("moved", [False, True])
def test_mixtures_with_their_segments(tmp_path, moved):
    def away(path):
        return f"/gone/storage/{path.relative_to(tmp_path)}"

    corpus = load(make(tmp_path, away if moved else str))
    assert [(u.id, u.split, u.speaker) for u in corpus.utterances] == [
        ("103-1_1034-2", "train", "103+1034"),
        ("103-3_1034-4", "train", "103+1034"),
        ("84-1_174-2", "valid", "174+84"),
        ("61-1_121-2", "test", "121+61"),
    ]
    assert corpus.utterances[0].value("segments") == "103 0.100 0.900; 1034 0.500 1.900"
    assert "partial copy: train 2 of 13900 utterances" in corpus.note


def test_what_is_there_is_checked(tmp_path):
    root = make(tmp_path)
    (root / "Libri2Mix/wav16k/max/train/mix_both/103-3_1034-4.wav").unlink()
    findings = {f.kind: f.items for f in audit(LAYOUT.survey(root), LAYOUT.official, root).findings}
    assert [item.name for item in findings["missing"]] == [
        str(root / "Libri2Mix/wav16k/max/train/mix_both/103-3_1034-4.wav")
    ]
    assert set(findings) == {"missing", "partial"}
    assert "1 listed mixtures that are not there left out" in load(root).note


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "dev/utt2spk",
            "other 84\n",
            "is not SEGMENT MIXTURE START END of a segment whose speaker",
        ),
        ("dev/segments", "84-1_174-2_84-1 84-1_174-2 0.1 x\n", "is not SEGMENT MIXTURE START END"),
        ("dev/segments", "84-1_174-2_84-1 other 0.1 0.2\n", "has nothing of 84-1_174-2"),
        ("dev/reco2dur", "84-1_174-2 1.5\n", "end at 1.9 s, and reco2dur says 1.5 s"),
        ("dev/wav.scp", "84-1_174-2\n", "wav.scp, line 1: no more than '84-1_174-2'"),
        ("dev/wav.scp", "84-1_174-2 b\n84-1_174-2 c\n", "line 2: again '84-1_174-2'"),
        (
            "dev/utt2spk",
            "84-1_174-2_84-1 103\n84-1_174-2_174-2 174\n",
            "speaker 103 is in train too",
        ),
        ("dev/segments", None, "cannot read .*segments"),
        ("dev/wav.scp", None, "no recordings of split dev"),
    ],
)
def test_lists_that_cannot_be_understood(tmp_path, file, text, message):
    root = make(tmp_path)
    if text is None:
        (root / file).unlink()
    else:
        (root / file).write_text(text)
    with pytest.raises(SuperbError, match=message):
        load(root)


def test_a_folder_without_it_says_how_to_get_it(tmp_path):
    with pytest.raises(SuperbError, match=r"generate_librimix_sd\.sh"):
        load(tmp_path)
