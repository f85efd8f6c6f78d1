"""Extraction: one frozen forward per utterance, whatever happens in between."""

import io
import os
import random
import shutil
import threading
import time
import weakref
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from rich.console import Console

from benchmark.core import HiddenStates, UpstreamCard, Utterance
from benchmark.encoding import features as module
from benchmark.encoding import forward, loading
from benchmark.encoding.features import (
    Extraction,
    ExtractionSettings,
    extract,
    find_features,
    kept_layers,
    left_to_encode,
)
from benchmark.encoding.forward import normalise
from benchmark.errors import AudioError, SuperbError, UpstreamError
from benchmark.progress import Messages, Progress

QUIET = Progress(quiet=True)

HOP = 160
KINDS = ("frames", "mean", "mean-normalised")


class Toy:
    """Three layers of a linear map of each hop; counts what passes."""

    def __init__(self, layers=3, dim=4, min_samples=HOP):
        self.card = UpstreamCard("toy", layers, dim, HOP, min_samples=min_samples)
        self.weight = torch.randn(layers, HOP, dim, generator=torch.Generator().manual_seed(0))
        self.calls = 0
        self.stop_at = None

    def __call__(self, waveforms):
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += len(waveforms)
        (waveform,) = waveforms
        frames = waveform[: len(waveform) // HOP * HOP].view(-1, HOP)
        values = torch.einsum("th,lhd->ltd", frames, self.weight)
        return HiddenStates(values[:, None], torch.tensor([len(frames)]))


@cache  # the header of a float file has the second in it when it was written
def wav(seed, samples=1600):
    noise = 0.1 * np.random.default_rng(seed).standard_normal(samples)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, 16_000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def corpus(count, start=0):
    return [
        Utterance(f"u{seed}", wav(seed, 1600 + 160 * seed), "train")
        for seed in range(start, start + count)
    ]


def files(folder, count):
    """A corpus of files that look an hour old."""
    folder.mkdir(exist_ok=True)
    utterances = []
    for utterance in corpus(count):
        path = folder / f"{utterance.id}.wav"
        path.write_bytes(utterance.audio)
        os.utime(path, (time.time() - 3600,) * 2)
        utterances.append(Utterance(utterance.id, path, "train"))
    return utterances


def what(upstream, wanted, folder, layers=None, mark="mark", **settings):
    return Extraction(upstream, mark, wanted, ExtractionSettings(folder, **settings), layers)


def read_all(features, kind, keys):
    """Stored or made anew, as training reads it."""
    if kind == "frames" and features.anew is not None:
        return [made.numpy() for made in features.anew(keys)]
    return features.stores[kind].read_all(keys)


def read_back(extraction, shares):
    """What is known of the features, and the features: kind → id → array."""
    with ExitStack() as resources:
        features = find_features(extraction, shares, resources)
        arrays = {
            kind: {
                u.id: read_all(features, kind, [features.keys[u.id]])[0]
                for u in utterances
                if u.id in features.keys
            }
            for kind, utterances in extraction.wanted.items()
        }
    return features, arrays


def go(upstream, wanted, folder, layers=None, shares=1, **settings):
    """Extract, share by share, and read everything back."""
    extraction = what(upstream, wanted, folder, layers, **settings)
    return read_back(
        extraction, [extract(extraction, QUIET, share, shares) for share in range(shares)]
    )


def test_one_pass_serves_every_kind(tmp_path):
    toy, utterances = Toy(), corpus(5)
    features, arrays = go(toy, dict.fromkeys(KINDS, utterances), tmp_path, storage="float32")
    assert toy.calls == 5
    assert set(features.keys) == {u.id for u in utterances}
    assert features.encoded.skipped == []
    audio_s = sum(1600 + 160 * i for i in range(5)) / 16_000
    assert features.encoded.audio_s == pytest.approx(audio_s)
    assert 0 < features.encoded.encoder_s < features.encoded.seconds
    for index, name in enumerate(features.keys):
        frames = torch.from_numpy(arrays["frames"][name])
        assert frames.shape == (3, 10 + index, 4)
        assert np.allclose(arrays["mean"][name], frames.mean(1), atol=1e-6)
        assert np.allclose(arrays["mean-normalised"][name], normalise(frames).mean(1), atol=1e-5)


def test_stored_values_are_the_encoders(tmp_path):
    toy, utterances = Toy(), corpus(2)
    _, arrays = go(toy, {"frames": utterances}, tmp_path, storage="float32")
    waveform, _ = soundfile.read(io.BytesIO(utterances[1].audio), dtype="float32")
    expected = toy([torch.from_numpy(waveform)]).values[:, 0]
    assert np.array_equal(arrays["frames"]["u1"], expected.numpy())


@pytest.fixture
def packs_here(monkeypatch):
    """As on another device than the processor."""
    monkeypatch.setattr(forward.FrozenEncoder, "seconds_at_once", 2.0)


class Packed(Toy):
    """The same; takes several utterances, and says that they do not change each other."""

    def __init__(self):
        super().__init__()
        self.card = replace(self.card, pad_invariant=True)
        self.together = []

    def __call__(self, waveforms):
        self.together.append(len(waveforms))
        each = [super(Packed, self).__call__([waveform]) for waveform in waveforms]
        return self.stacked([states.values[:, 0] for states in each])

    def stacked(self, each):
        lengths = torch.tensor([frames.shape[1] for frames in each])
        values = torch.zeros(3, len(each), int(lengths.max()), 4)
        for row, frames in enumerate(each):
            values[:, row, : frames.shape[1]] = frames
        return HiddenStates(values, lengths)


@pytest.mark.parametrize("shares", [1, 3])
def test_encoders_that_padding_does_not_change_get_several_at_once(tmp_path, packs_here, shares):
    utterances = [*corpus(40), Utterance("again", wav(3, 1600 + 160 * 3), "train")]
    wanted = {"frames": utterances, "mean": utterances[5:]}
    features, arrays = go(Packed(), wanted, tmp_path / "packed", storage="float32", shares=shares)
    packed = Packed()
    go(packed, wanted, tmp_path / "counted", shares=shares)
    assert max(packed.together) > 5
    assert packed.calls == 40 + shares  # of each share, one was compared with itself alone
    alone, one_by_one = go(Toy(), wanted, tmp_path / "alone", storage="float32")
    assert features.keys == alone.keys
    for kind in wanted:
        for name, values in one_by_one[kind].items():
            assert np.allclose(arrays[kind][name], values, atol=1e-6)


def test_what_is_not_stored_is_encoded_anew_together(tmp_path, packs_here):
    packed, wanted = Packed(), {"frames": corpus(20)}
    extraction = what(packed, wanted, tmp_path, storage="none")
    with ExitStack() as resources:
        features = find_features(extraction, [extract(extraction, QUIET)], resources)
        names = [f"u{place}" for place in (7, 0, 19, 3)]
        packed.together.clear()
        found = read_all(features, "frames", [features.keys[name] for name in names])
    assert packed.together == [4]
    _, alone = go(Toy(), wanted, tmp_path / "alone", storage="float32")
    for name, values in zip(names, found, strict=True):
        assert np.allclose(values, alone["frames"][name], atol=1e-6)


def test_an_encoder_that_padding_does_change_is_found_out(tmp_path, packs_here):
    class Liar(Packed):
        def stacked(self, each):
            states = super().stacked(each)
            return HiddenStates(states.values - states.values.mean(2, True), states.lengths)

    with pytest.raises(UpstreamError, match=r"u\d+ other features .*pad_invariant=False"):
        go(Liar(), {"frames": corpus(6)}, tmp_path)


def test_encoders_that_allow_it_are_called_side_by_side_to_the_same_bits(tmp_path):
    class Concurrent(Toy):
        concurrent = True

        def __init__(self):
            super().__init__()
            self.threads = set()

        def __call__(self, waveforms):
            self.threads.add(threading.get_ident())
            time.sleep(0.01)
            return super().__call__(waveforms)

    utterances = corpus(12)
    # the same audio again while it is being encoded, for kinds that were not asked for then
    twice = [Utterance(f"again{u.id}", u.audio, "train") for u in utterances]
    mixed = [one for pair in zip(utterances, twice, strict=True) for one in pair]
    wanted = {"frames": mixed[::2], "mean": mixed, "mean-normalised": mixed[1::2]}
    before, seed = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(3)
    try:
        several = Concurrent()
        _, arrays = go(several, wanted, tmp_path / "several")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len(several.threads) == 3
    assert several.calls == 12
    assert torch.equal(torch.get_rng_state(), seed)
    _, alone = go(Toy(), wanted, tmp_path / "alone")
    for kind in KINDS:
        for name, values in alone[kind].items():
            assert np.array_equal(arrays[kind][name], values)


def test_what_has_no_room_together_is_encoded_alone(tmp_path, packs_here):
    class Small(Packed):
        def __call__(self, waveforms):
            if len(waveforms) > 1:
                raise MemoryError("too much")
            return super().__call__(waveforms)

    wanted, said = {"frames": corpus(6)}, Messages()
    extraction = what(Small(), wanted, tmp_path / "small", storage="float32")
    found = extract(extraction, said)
    assert 1 <= len(found.apart) <= found.packs < 6
    (warning,) = said.warnings  # once, however many
    assert f"{len(found.apart)} of {found.packs} packs of utterances had to be" in warning
    assert "MemoryError: too much" in warning
    _, arrays = read_back(extraction, [found])
    _, wanted = go(Toy(), {"frames": corpus(6)}, tmp_path / "alone", storage="float32")
    assert all(
        np.array_equal(arrays["frames"][name], own) for name, own in wanted["frames"].items()
    )


def test_stored_mean_is_the_mean_of_stored_frames(tmp_path):
    toy, utterances = Toy(), corpus(4)
    _, arrays = go(toy, {"frames": utterances, "mean": utterances}, tmp_path)
    for name, frames in arrays["frames"].items():
        # each side is rounded to 11 bits
        bound = 2**-11 * (np.abs(frames).mean(1) + np.abs(arrays["mean"][name])) + 1e-6
        assert (np.abs(frames.mean(1) - arrays["mean"][name]) <= bound).all()


def test_kinds_for_different_utterances(tmp_path):
    toy, utterances = Toy(), corpus(5)
    wanted = {"frames": utterances[:3], "mean": utterances[2:]}
    _, arrays = go(toy, wanted, tmp_path)
    assert toy.calls == 5
    assert list(arrays["frames"]) == ["u0", "u1", "u2"]
    assert list(arrays["mean"]) == ["u2", "u3", "u4"]


def test_same_audio_passes_once(tmp_path):
    toy, (first, second) = Toy(), corpus(2)
    path = tmp_path / "copy.wav"
    path.write_bytes(first.audio)
    copies = [Utterance("copy", path, "test"), Utterance("again", first.audio, "valid")]
    utterances = [first, second, *copies]
    features, arrays = go(toy, dict.fromkeys(KINDS, utterances), tmp_path / "cache")
    assert toy.calls == 2
    assert features.keys["copy"] == features.keys["again"] == features.keys["u0"]
    assert np.array_equal(arrays["frames"]["copy"], arrays["frames"]["u0"])


def test_second_run_encodes_nothing(tmp_path):
    utterances = corpus(4)
    _, first = go(Toy(), dict.fromkeys(KINDS, utterances), tmp_path)
    toy = Toy()
    features, second = go(toy, dict.fromkeys(KINDS, utterances), tmp_path)
    assert toy.calls == 0
    assert (features.encoded.audio_s, features.encoded.encoder_s) == (0, 0)
    for kind in KINDS:
        for name in first[kind]:
            assert np.array_equal(first[kind][name], second[kind][name])


def test_second_run_opens_no_audio(tmp_path, monkeypatch):
    utterances = files(tmp_path / "audio", 4)
    _, first = go(Toy(), {"mean": utterances}, tmp_path / "cache")
    monkeypatch.setattr(module, "load", lambda *_: pytest.fail("audio was read"))
    _, second = go(Toy(), {"mean": utterances}, tmp_path / "cache")
    assert all(np.array_equal(first["mean"][u.id], second["mean"][u.id]) for u in utterances)


@pytest.mark.parametrize("change", ["content", "time"])
def test_a_file_that_changed_is_read_again(tmp_path, change):
    utterances = files(tmp_path / "audio", 3)
    before, _ = go(Toy(), {"mean": utterances}, tmp_path / "cache")
    path = utterances[1].audio
    if change == "content":
        path.write_bytes(wav(77, 1760))  # as long as before
    os.utime(path, (time.time() - 60,) * 2)
    toy = Toy()
    after, _ = go(toy, {"mean": utterances}, tmp_path / "cache")
    assert toy.calls == (1 if change == "content" else 0)
    assert (after.keys["u1"] != before.keys["u1"]) is (change == "content")
    assert after.keys["u2"] == before.keys["u2"]


def test_the_first_encode_does_not_wait_for_the_last_file(tmp_path, monkeypatch):
    utterances = files(tmp_path / "audio", 60)
    loaded, seen = [], []
    load = module.load

    def counting(utterance, read):
        loaded.append(utterance.id)
        return load(utterance, read)

    class Watching(Toy):
        def __call__(self, waveforms):
            seen.append(len(loaded))
            return super().__call__(waveforms)

    monkeypatch.setattr(module, "load", counting)
    go(Watching(), {"mean": utterances}, tmp_path / "cache")
    assert seen[0] <= 20
    assert len(loaded) == 60


def test_few_waveforms_are_in_memory_at_a_time(tmp_path, monkeypatch):
    alive, most = weakref.WeakSet(), []
    hear = loading.hear

    def watched(*arguments, **options):
        sound = hear(*arguments, **options)
        alive.add(sound.waveform)
        return sound

    class Watching(Toy):
        def __call__(self, waveforms):
            most.append(len(alive))
            return super().__call__(waveforms)

    monkeypatch.setattr(loading, "hear", watched)
    go(Watching(), {"frames": files(tmp_path / "audio", 80)}, tmp_path / "cache")
    assert len(most) == 80
    assert 1 <= max(most) <= module._AHEAD + 2


@pytest.mark.parametrize("decoders", [2, 5])
def test_decoding_and_rounding_in_several_threads_change_nothing(tmp_path, monkeypatch, decoders):
    """Neither values nor what is told of files that cannot be used."""
    utterances = [*with_bad(tmp_path)[:4], *files(tmp_path / "audio", 12), *with_bad(tmp_path)[4:]]
    utterances = [replace(u, id=f"{place} {u.id}") for place, u in enumerate(utterances)]
    options = {"on_bad_audio": "skip", "storage": "float16"}
    before, alone = go(Toy(), {"frames": utterances}, tmp_path / "one", **options)
    threads = set()
    hear = loading.hear

    def watched(*arguments, **options):
        threads.add(threading.get_ident())
        time.sleep(0.002 * (len(threads) % 3))  # whoever comes first is not ready first
        return hear(*arguments, **options)

    monkeypatch.setattr(loading, "hear", watched)
    monkeypatch.setattr(forward.FrozenEncoder, "decoders", decoders)
    features, arrays = go(Toy(), {"frames": utterances}, tmp_path / "several", **options)
    assert len(threads) == decoders
    assert list(features.keys.items()) == list(before.keys.items())
    assert features.encoded.skipped == before.encoded.skipped
    for name, values in alone["frames"].items():
        assert np.array_equal(arrays["frames"][name], values)


def test_an_interrupt_waits_for_nothing_that_has_not_begun(tmp_path, monkeypatch):
    heard, encoding, hear = [], threading.Event(), loading.hear

    def slow(*arguments, **options):
        heard.append(1)
        assert len(heard) <= 3 or encoding.wait(30)
        time.sleep(0.01)
        return hear(*arguments, **options)

    class Stopped(Toy):
        def __call__(self, waveforms):
            encoding.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(loading, "hear", slow)
    monkeypatch.setattr(module, "_AHEAD", 40)
    monkeypatch.setattr(forward.FrozenEncoder, "decoders", 3)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        go(Stopped(), {"frames": files(tmp_path / "audio", 50)}, tmp_path / "cache")
    assert 3 <= len(heard) < 12
    assert threading.active_count() == before


def test_layers_asked_for_are_those_of_all_layers(tmp_path):
    utterances = corpus(4)
    _, whole = go(Toy(), {"frames": utterances}, tmp_path / "whole", storage="int8")
    features, part = go(
        Toy(), {"frames": utterances, "mean": utterances}, tmp_path / "part", (0, 2), storage="int8"
    )
    assert features.layers == (0, 2)
    for name, values in whole["frames"].items():
        assert np.array_equal(part["frames"][name], values[[0, 2]])
        assert part["mean"][name].shape == (3, 4)


def test_layers_are_read_from_a_store_that_has_them_all(tmp_path):
    utterances = files(tmp_path / "audio", 4)
    go(Toy(), {"frames": utterances}, tmp_path / "cache")
    toy = Toy()

    def asked(utterances, mark="mark"):
        return what(toy, {"frames": utterances}, tmp_path / "cache", (2,), mark)

    def go_kept(extraction):
        return go(toy, extraction.wanted, tmp_path / "cache", kept_layers(extraction))

    features, arrays = go_kept(asked(utterances))
    assert (toy.calls, features.layers) == (0, None)
    assert arrays["frames"]["u0"].shape == (3, 10, 4)
    assert left_to_encode(asked(utterances)) == {"frames": 4}  # of a store of the one layer
    assert kept_layers(asked(utterances, "other")) == (2,)
    # of one more utterance they have not all: then a store of the one layer is made
    more = files(tmp_path / "audio", 5)
    features, arrays = go_kept(asked(more))
    assert (toy.calls, features.layers) == (5, (2,))
    assert arrays["frames"]["u0"].shape == (1, 10, 4)
    assert left_to_encode(asked(more)) == {"frames": 0}


def test_nothing_stored_is_encoded_anew(tmp_path):
    utterances = files(tmp_path / "audio", 3)
    _, stored = go(Toy(), {"frames": utterances}, tmp_path / "stored", storage="float32")
    toy = Toy()
    wanted = {"frames": utterances, "mean": utterances}
    features, arrays = go(toy, wanted, tmp_path / "none", storage="none")
    assert toy.calls == 6  # once for lengths and means, once for reading
    for name, values in stored["frames"].items():
        assert np.array_equal(arrays["frames"][name], values)
    assert not list(features.stores["frames"].folder.glob("*.bin"))
    assert features.stores["mean"].storage == "float32"
    again = Toy()
    go(again, wanted, tmp_path / "none", storage="none")
    assert again.calls == 3


def test_audio_that_changes_under_way_is_not_encoded_anew(tmp_path):
    utterances = files(tmp_path / "audio", 2)
    extraction = what(Toy(), {"frames": utterances}, tmp_path / "cache", storage="none")
    with ExitStack() as resources:
        features = find_features(extraction, [extract(extraction, QUIET)], resources)
        utterances[1].audio.write_bytes(wav(9))
        (frames,) = features.anew([features.keys["u0"]])
        assert frames.shape == (3, 10, 4)
        with pytest.raises(SuperbError, match=r"u1\.wav\) changed during the run"):
            features.anew([features.keys["u1"]])


def test_shares_cover_every_recording_once_and_give_the_same_bits(tmp_path):
    """Spans go with their recording; in any order, twice or not."""
    (path,) = {u.audio for u in files(tmp_path / "audio", 7) if u.id == "u6"}
    spans = [Utterance(f"part{at}", path, "train", span=(at, 0.05)) for at in (0.0, 0.05)]
    utterances = [*files(tmp_path / "audio", 7), *spans]
    wanted = {"frames": utterances, "mean": utterances[:8]}
    whole, exact = go(Toy(), wanted, tmp_path / "one")
    toys = [Toy(), Toy(), Toy()]
    extractions = [what(toy, wanted, tmp_path / "three") for toy in toys]
    shares = [extract(extractions[share], QUIET, share, 3) for share in (2, 0, 1)]
    assert [toy.calls for toy in toys] == [5, 2, 2]
    again = extract(extractions[0], QUIET, 0, 3)
    assert (toys[0].calls, again.encoder_s) == (5, 0)
    together, arrays = read_back(extractions[0], shares)
    assert list(together.keys.items()) == list(whole.keys.items())
    assert together.encoded.audio_s == pytest.approx(whole.encoded.audio_s)
    for kind, own in exact.items():
        for name, array in own.items():
            assert np.array_equal(arrays[kind][name], array)


def test_what_another_share_stored_elsewhere_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VISIBLE_S", 0.0)
    wanted = {"mean": corpus(4)}
    shares = [
        extract(what(Toy(), wanted, tmp_path / str(share)), QUIET, share, 2) for share in range(2)
    ]
    with pytest.raises(SuperbError, match="that all machines share with --cache-dir DIR"):
        read_back(what(Toy(), wanted, tmp_path / "0"), shares)


def test_only_what_is_new_is_encoded(tmp_path):
    go(Toy(), {"frames": corpus(3)}, tmp_path)
    toy = Toy()
    go(toy, {"frames": corpus(5)}, tmp_path)
    assert toy.calls == 2


@pytest.mark.parametrize("changes", [{"storage": "float32"}, {"precision": "bfloat16"}])
def test_other_settings_share_nothing(tmp_path, changes):
    go(Toy(), {"frames": corpus(2)}, tmp_path)
    toy = Toy()
    go(toy, {"frames": corpus(2)}, tmp_path, **changes)
    assert toy.calls == 2


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_interrupted_extraction_goes_on_where_it_stopped(tmp_path, stop):
    utterances = corpus(6)
    wanted = dict.fromkeys(KINDS, utterances)
    _, whole = go(Toy(), wanted, tmp_path / "whole")
    stopped = Toy()
    stopped.stop_at = stop
    with pytest.raises(KeyboardInterrupt):
        go(stopped, wanted, tmp_path / "cut")
    assert stopped.calls == stop
    rest = Toy()
    _, resumed = go(rest, wanted, tmp_path / "cut")
    assert rest.calls == len(utterances) - stop
    for kind in KINDS:
        for name, values in whole[kind].items():
            assert np.array_equal(resumed[kind][name], values)


def test_failing_encoder_keeps_what_was_finished(tmp_path):
    class Failing(Toy):
        def __call__(self, waveforms):
            if self.calls == 3:
                raise RuntimeError("out of luck")
            return super().__call__(waveforms)

    with pytest.raises(UpstreamError):
        go(Failing(), {"frames": corpus(5)}, tmp_path)
    toy = Toy()
    go(toy, {"frames": corpus(5)}, tmp_path)
    assert toy.calls == 2


BAD = {
    "garbage": b"this is no audio",
    "empty": wav(0, 0),
    "short": wav(1, 10),
    "cut": wav(2)[:-500],
}


def with_bad(tmp_path):
    bad = [Utterance(name, audio, "train") for name, audio in BAD.items()]
    bad.append(Utterance("missing", tmp_path / "none.wav", "train"))
    good = corpus(2)
    return [good[0], *bad, good[1]]


@pytest.mark.parametrize("shares", [1, 3])
def test_all_bad_audio_is_named_at_once(tmp_path, shares):
    with pytest.raises(AudioError) as caught:
        go(Toy(), {"frames": with_bad(tmp_path)}, tmp_path / "cache", shares=shares)
    message = str(caught.value)
    assert message.startswith("5 of 7 audio files cannot be used")
    places = [message.index(f"{name}: ") for name in [*BAD, "missing"]]
    assert places == sorted(places)  # in corpus order
    assert "--on-bad-audio skip" in message


def test_nothing_more_is_encoded_once_bad_audio_ends_the_run(tmp_path):
    toy = Toy()
    bad = Utterance("bad", b"no audio", "train")
    with pytest.raises(AudioError, match="1 of 41"):
        go(toy, {"mean": [bad, *corpus(40)]}, tmp_path)
    assert toy.calls < 20


def test_many_bad_files_are_counted(tmp_path):
    utterances = [Utterance(f"bad{i}", bytes([i]), "train") for i in range(8)]
    with pytest.raises(AudioError, match=r"8 of 8 .*and 3 more"):
        go(Toy(), {"frames": utterances}, tmp_path)


def test_an_id_of_two_recordings_is_refused(tmp_path):
    wanted = {"frames": corpus(2), "mean": [Utterance("u1", wav(7), "train")]}
    with pytest.raises(SuperbError, match="the id 'u1' is of one recording in one task and of an"):
        go(Toy(), wanted, tmp_path)


def test_bad_audio_of_another_task(tmp_path):
    """Shares are of all tasks; what is skipped is told of those that asked for it."""
    bad, settings = Utterance("bad", b"no audio", "train"), {"on_bad_audio": "skip"}
    shares = [extract(what(Toy(), {"mean": [bad, *corpus(2)]}, tmp_path, **settings), QUIET)]
    with ExitStack() as resources:
        own = what(Toy(), {"mean": corpus(2)}, tmp_path, **settings)
        assert find_features(own, shares, resources).encoded.skipped == []
        with pytest.raises(AudioError, match="1 of 3 audio files cannot be used: bad"):
            find_features(what(Toy(), {"mean": corpus(2)}, tmp_path), shares, resources)


@pytest.mark.parametrize("shares", [1, 2, 3])
def test_bad_audio_can_be_skipped(tmp_path, shares):
    for _ in range(2):  # found again by a later run
        features, arrays = go(
            Toy(), {"mean": with_bad(tmp_path)}, tmp_path / "cache", None, shares,
            on_bad_audio="skip",
        )  # fmt: skip
        skipped = features.encoded.skipped
        assert [item.utterance for item in skipped] == [*BAD, "missing"]  # in corpus order
        assert set(features.keys) == set(arrays["mean"]) == {"u0", "u1"}
    reasons = {item.utterance: item.reason for item in skipped}
    assert "too short" in reasons["short"]
    assert "truncated" in reasons["cut"]


def test_copies_of_bad_audio_are_bad_too(tmp_path):
    bad = [Utterance(name, BAD["garbage"], "train") for name in ("one", "two")]
    features, _ = go(Toy(), {"mean": [*bad, *corpus(1)]}, tmp_path, on_bad_audio="skip")
    assert [item.utterance for item in features.encoded.skipped] == ["one", "two"]
    assert set(features.keys) == {"u0"}
    with pytest.raises(AudioError, match=r"2 of 3 .*one: .*two: "):
        go(Toy(), {"mean": [*bad, *corpus(1)]}, tmp_path)


class Broken(Toy):
    """A toy whose answer is spoilt in a way of choice."""

    def __init__(self, spoil):
        super().__init__()
        self.spoil = spoil

    def __call__(self, waveforms):
        states = super().__call__(waveforms)
        return self.spoil(states.values.clone(), states.lengths)


def raising(values, lengths):
    raise ZeroDivisionError("no such frame")


def with_nan(values, lengths):
    values[1, 0, 2, 3] = torch.nan
    return HiddenStates(values, lengths)


def with_infinity(values, lengths):
    values[0, 0, 0, 0] = -torch.inf
    return HiddenStates(values, lengths)


CONTRACT = ["broke its contract on u0 (0.10 s)", "3 layers x 4", "superb check"]
SPOILT = {
    "nan": (with_nan, ["NaN or infinity for u0 (0.10 s)"]),
    "infinity": (with_infinity, ["NaN or infinity for u0"]),
    "dim": (lambda v, n: HiddenStates(v[..., :3], n), [*CONTRACT, "[3, 1, 10, 3]"]),
    "layers": (lambda v, n: HiddenStates(v[:2], n), [*CONTRACT, "[2, 1, 10, 4]"]),
    "two": (
        lambda v, n: HiddenStates(v.expand(3, 2, 10, 4), n.expand(2)),
        [*CONTRACT, "[3, 2, 10, 4]"],
    ),
    "none": (lambda v, n: HiddenStates(v[:, :0], n[:0]), [*CONTRACT, "[3, 0, 10, 4]"]),
    "long": (lambda v, n: HiddenStates(v, n + 1), [*CONTRACT, "length 11"]),
    "no frame": (lambda v, n: HiddenStates(v, n * 0), [*CONTRACT, "length 0"]),
    "tensor": (lambda v, n: v, ["returned Tensor", "must return HiddenStates", "superb check"]),
    "arrays": (
        lambda v, n: HiddenStates(v.numpy(), n.numpy()),
        ["ndarray", "must be torch tensors", "superb check"],
    ),
    "raises": (
        raising,
        ["failed on u0 (0.10 s): ZeroDivisionError: no such frame", "test_features.py:", "check"],
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_broken_encoders_are_told_so(tmp_path, case):
    spoil, words = SPOILT[case]
    with pytest.raises(UpstreamError) as caught:
        go(Broken(spoil), {"mean": corpus(2)}, tmp_path)
    message = str(caught.value)
    assert "upstream toy" in message
    assert all(word in message for word in words), message
    # and nothing of it is stored
    toy = Toy()
    go(toy, {"mean": corpus(2)}, tmp_path)
    assert toy.calls == 2


def test_padding_frames_are_not_stored(tmp_path):
    def pad(values, lengths):
        return HiddenStates(torch.nn.functional.pad(values, (0, 0, 0, 5)), lengths)

    _, arrays = go(Broken(pad), {"frames": corpus(1), "mean": corpus(1)}, tmp_path)
    _, plain = go(Toy(), {"frames": corpus(1), "mean": corpus(1)}, tmp_path / "plain")
    for kind in ("frames", "mean"):
        assert np.array_equal(arrays[kind]["u0"], plain[kind]["u0"])


@pytest.mark.parametrize("stubborn", [False, True])
def test_learning_encoders_are_frozen(tmp_path, stubborn):
    seen = []

    class Learning(Toy):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(self.weight)

        def __call__(self, waveforms):
            with torch.inference_mode(not stubborn), torch.set_grad_enabled(stubborn):
                states = super().__call__([waveform.clone() for waveform in waveforms])
            seen.append(states.values.requires_grad)
            return states

    toy = Learning()
    _, arrays = go(toy, dict.fromkeys(KINDS, corpus(2)), tmp_path, storage="float32")
    assert seen == [stubborn] * 2
    _, plain = go(Toy(), dict.fromkeys(KINDS, corpus(2)), tmp_path / "plain", storage="float32")
    assert np.array_equal(arrays["frames"]["u1"], plain["frames"]["u1"])
    assert toy.weight.grad is None


def test_no_gradient_is_recorded_for_a_plain_encoder(tmp_path):
    modes = []

    class Watching(Toy):
        def __call__(self, waveforms):
            modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
            return super().__call__(waveforms)

    go(Watching(), {"mean": corpus(1)}, tmp_path)
    assert modes == [(False, True)]


def test_global_random_states_are_left_alone(tmp_path):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    go(Toy(), dict.fromkeys(KINDS, corpus(3)), tmp_path)
    assert states() == before


def test_no_room_encodes_nothing(tmp_path, monkeypatch):
    usage = SimpleNamespace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    toy = Toy()
    with pytest.raises(SuperbError, match=r"free\. Choose another disk"):
        go(toy, {"frames": corpus(2)}, tmp_path)
    assert toy.calls == 0


def test_plan_says_what_comes(tmp_path):
    output = io.StringIO()
    progress = Progress(console=Console(file=output, width=200))
    extract(what(Toy(), {"frames": corpus(2) * 2}, tmp_path, storage="float32"), progress)
    # 10 and 11 frames, one to spare each, of 3 layers x 4 numbers x 4 bytes
    # however many tasks want them
    expected = "toy: encoding 2 utterances, 0.0 min of audio; 1.1 kB of frames"
    assert expected in output.getvalue()
    assert "2/2" in output.getvalue()


def test_spans_of_one_recording_have_features_of_their_own(tmp_path):
    toy, (whole,) = Toy(), corpus(1, start=20)  # 0.3 s
    parts = [
        Utterance(f"part{index}", whole.audio, "train", span=span)
        for index, span in enumerate([(0.0, 0.1), (0.1, 0.1), (0.0, 0.2)])
    ]
    features, arrays = go(toy, {"frames": [whole, *parts]}, tmp_path, storage="float32")
    assert len(set(features.keys.values())) == 4
    frames = arrays["frames"]
    assert np.allclose(frames["part0"], frames["u20"][:, :10], atol=1e-5)
    assert np.allclose(frames["part1"], frames["u20"][:, 10:20], atol=1e-5)
    assert np.allclose(frames["part2"], frames["u20"][:, :20], atol=1e-5)
    assert features.encoded.audio_s == pytest.approx(0.3 + 0.1 + 0.1 + 0.2)


def test_a_span_that_is_not_in_its_file_is_bad_audio(tmp_path):
    (whole,) = corpus(1)
    late = Utterance("late", whole.audio, "train", span=(0.05, 0.1))
    with pytest.raises(AudioError, match=r"late.*are not in it"):
        go(Toy(), {"frames": [late]}, tmp_path)
    features, _ = go(Toy(), {"frames": [whole, late]}, tmp_path, on_bad_audio="skip")
    assert list(features.keys) == ["u0"]
