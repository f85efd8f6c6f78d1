"""Upstreams as they are taken over, and what a site is told from another by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmark.errors import SuperbError, UpstreamError
from benchmark.jobs.site import find_device, prepare_encoder
from benchmark.progress import Messages


def test_a_class_is_no_encoder(bands):
    with pytest.raises(SuperbError, match=r"Bands is a class; pass an instance of it: Bands\(\)"):
        prepare_encoder(bands, "cpu", Messages())


def test_what_cannot_be_hashed_is_said_and_a_note_of_the_card_too(bands):
    class Odd(bands):
        card = replace(bands.card, note="untrained")
        fingerprint = None

        def __init__(self):
            super().__init__()
            self.source = iter([])

    messages = Messages()
    encoders = [prepare_encoder(Odd(), "cpu", messages) for _ in range(2)]
    assert encoders[0].fingerprint != encoders[1].fingerprint
    assert "bands holds something that cannot be hashed" in messages.warnings[0]
    assert messages.warnings[1] == "bands: untrained"


def test_an_encoder_is_moved_and_its_weights_are_counted(bands):
    class Heavy(bands):
        def __init__(self, full=False):
            super().__init__()
            self.layer, self.full, self.place = torch.nn.Linear(3, 5), full, None

        def to(self, device):
            if self.full:
                raise RuntimeError("out of memory")
            self.place = device

    heavy = Heavy()
    encoder = prepare_encoder(heavy, "cpu", Messages())
    assert (heavy.place, encoder.parameters, heavy.layer.training) == ("cpu", 20, False)
    with pytest.raises(UpstreamError, match="bands cannot be moved to cpu: RuntimeError: out of"):
        prepare_encoder(Heavy(full=True), "cpu", Messages())


def test_devices(monkeypatch):
    assert find_device("cpu") == "cpu"
    for name in ("quantum", "meta", "cuda:99"):
        with pytest.raises(SuperbError, match=rf"device '{name}' cannot be used: .*--device cpu"):
            find_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == "cpu"
    asked, current = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda size, device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert [find_device(name) for name in ("auto", "cuda:1")] == ["cuda", "cuda:1"]
    assert (asked, current) == (["cuda", "cuda:1"], ["cuda:1"])


def test_a_digest_names_the_part_that_differs(site_of, bands, changed):
    other = bands()
    other.fingerprint = "bands 2"
    base = site_of(tasks=("ks", "sid")).digest
    for part, site in {
        "upstream bands": site_of(other, tasks=("ks", "sid")),
        "rules of sid": site_of(
            tasks=("ks", "sid"), protocol=changed(("[sid]\nupdates = 60", "[sid]\nupdates = 80"))
        ),
    }.items():
        assert [name for name in base if base[name] != site.digest[name]] == [part]
    # what is only where: results are the same there
    elsewhere = site_of(tasks=("ks", "sid"), output="elsewhere", cache_dir=None, seeds=1)
    assert elsewhere.digest == base
