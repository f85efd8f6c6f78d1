"""The file that an interrupted training goes on from."""

import pytest
import torch

from benchmark.probing import snapshot as resume
from benchmark.probing.snapshot import Snapshot, clear
from benchmark.progress import Progress

STATE = {"update": 3, "probes": [{"losses": [0.1, float("inf")], "weight": torch.arange(3.0)}]}


def make(tmp_path, depends_on=None, every_s=0.0):
    return Snapshot(tmp_path / "training", depends_on or {"runs": ["a"]}, Progress(), every_s)


def test_what_is_saved_is_read_and_then_gone(tmp_path):
    snapshot = make(tmp_path)
    assert snapshot.read() is None
    snapshot.save(STATE)
    state = make(tmp_path).read()
    assert state["update"] == 3
    assert state["probes"][0]["losses"] == STATE["probes"][0]["losses"]
    assert torch.equal(state["probes"][0]["weight"], torch.arange(3.0))
    snapshot.discard()
    assert make(tmp_path).read() is None
    assert list((tmp_path / "training").iterdir()) == []
    snapshot.discard()  # a second time is no mistake


def test_what_killed_processes_left_of_a_run_is_cleared(tmp_path):
    folder = tmp_path / "training"
    for run in ("a", "b"):
        snapshot = Snapshot(folder, {}, Progress(), run=run)
        snapshot.save(STATE)
        snapshot._temporary.write_bytes(b"half of it")
    clear(folder, "a")
    assert {path.name[:2] for path in folder.iterdir()} == {"b-"}
    clear(tmp_path / "none", "a")


def test_another_training_is_not_found(tmp_path, monkeypatch):
    make(tmp_path).save(STATE)
    assert make(tmp_path, {"runs": ["b"]}).read() is None
    monkeypatch.setattr("benchmark.probing.snapshot._ENGINE", "changed code")
    assert make(tmp_path).read() is None


def test_two_processes_do_not_write_to_one_file(tmp_path, monkeypatch):
    ours, theirs = make(tmp_path), make(tmp_path)
    assert ours.path == theirs.path
    save = resume.torch.save

    def meanwhile(state, file):
        """The other process saves between our bytes and our renaming."""
        save(state, file)
        monkeypatch.setattr("benchmark.probing.snapshot.torch.save", save)
        theirs.save({**STATE, "update": 8})

    monkeypatch.setattr("benchmark.probing.snapshot.torch.save", meanwhile)
    ours.save(STATE)
    assert ours.read()["update"] == STATE["update"]


def test_it_is_due_now_and_then_and_costs_little(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("benchmark.probing.snapshot.time.monotonic", lambda: now[0])
    snapshot = make(tmp_path, every_s=60.0)
    now[0] += 59
    assert not snapshot.due
    now[0] += 1
    assert snapshot.due

    def slow(state, path):
        path.write_bytes(b"")
        now[0] += 10

    monkeypatch.setattr("benchmark.probing.snapshot.torch.save", slow)
    snapshot.save(STATE)
    now[0] += 199
    assert not snapshot.due  # ten seconds of every 200
    now[0] += 1
    assert snapshot.due


@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "pickle"])
def test_a_damaged_file_is_named_and_removed(tmp_path, capsys, damage):
    snapshot = make(tmp_path)
    snapshot.save(STATE)
    whole = snapshot.path.read_bytes()
    if damage == "pickle":  # reading must not run code
        torch.save({"update": Snapshot}, snapshot.path)
    else:
        content = {"cut": whole[: len(whole) // 2], "empty": b"", "noise": b"noise" * 100}[damage]
        snapshot.path.write_bytes(content)
    assert make(tmp_path).read() is None
    assert "is damaged; training starts from the beginning" in said(capsys)
    assert not snapshot.path.exists()


def test_a_full_disk_is_said_once_and_the_older_state_is_kept(tmp_path, monkeypatch, capsys):
    snapshot = make(tmp_path)
    snapshot.save(STATE)

    def full(state, path):
        path.write_bytes(b"half of it")
        raise RuntimeError("unexpected pos 64 vs 0")

    with monkeypatch.context() as patch:
        patch.setattr("benchmark.probing.snapshot.torch.save", full)
        snapshot.save({"update": 4})
        snapshot.save({"update": 5})
    message = said(capsys)
    assert message.count("cannot be saved") == 1
    assert "Training goes on" in message
    assert "--cache-dir" in message
    assert make(tmp_path).read()["update"] == 3
    assert list(snapshot.path.parent.iterdir()) == [snapshot.path]


def test_a_folder_that_cannot_be_made_is_no_end_of_training(tmp_path, capsys):
    (tmp_path / "training").write_text("a file")
    make(tmp_path).save(STATE)
    assert "cannot be saved" in said(capsys)


def said(capsys):
    return " ".join(capsys.readouterr().err.split())
