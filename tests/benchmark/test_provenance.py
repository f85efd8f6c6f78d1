import getpass
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import provenance as module
from benchmark.provenance import PACKAGES, command_line, provenance, source_commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "checkout" / "package"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text("1\n")
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "--quiet", "--message", "first")
    return folder


def test_holds_what_a_reader_needs():
    found = provenance("cpu")
    assert set(found) == {
        "superb", "commit", "dirty", "python", "packages", "platform", "cpu", "cpus", "device",
        "command",
    }  # fmt: skip
    assert set(found["packages"]) == set(PACKAGES)
    assert found["packages"]["numpy"]
    assert found["device"] == "cpu"
    assert found["cpus"] >= 1
    assert found["cpu"]
    json.dumps(found, allow_nan=False)


def test_names_no_user(monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{Path.home()}/bin/superb", "run", f"{Path.home()}/data"])
    found = provenance("cpu")
    assert found["command"] == ["superb", "run", "~/data"]
    text = json.dumps(found)
    if len(str(Path.home())) > 1:
        assert f"{Path.home()}/" not in text
    if getpass.getuser() != "root":
        assert getpass.getuser() not in text


def test_commit_and_dirty(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert source_commit(checkout) == (commit, False)
    (checkout / "notes.txt").write_text("not known to git")
    assert source_commit(checkout) == (commit, False)
    (checkout / "code.py").write_text("2\n")
    assert source_commit(checkout) == (commit, True)


def test_not_a_checkout(tmp_path):
    assert source_commit(tmp_path) == (None, None)


def test_installed_inside_a_strangers_checkout(checkout):
    site = checkout.parent / ".venv" / "package"
    site.mkdir(parents=True)
    (site / "code.py").write_text("1\n")
    assert source_commit(site) == (None, None)


def test_neither_folder_nor_variables_of_the_caller_matter(checkout, tmp_path, monkeypatch):
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("GIT_DIR", str(checkout.parent / ".git"))
    outside = tmp_path / "outside"
    outside.mkdir()
    assert source_commit(outside) == (None, None)


def test_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert source_commit(checkout) == (None, None)


def test_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("surely-not-installed",))
    assert provenance("cpu")["packages"] == {"surely-not-installed": None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["/usr/bin/superb", "list"], ["superb", "list"]),
        (["superb", "--data=/home/ann/x"], ["superb", "--data=~/x"]),
        (["superb", "/home/ann"], ["superb", "~"]),
        (["superb", "/home/anna/x"], ["superb", "/home/anna/x"]),
        ([], [""]),
    ],
)
def test_command_line(given, expected):
    assert command_line(given, Path("/home/ann")) == expected


def test_home_that_is_the_root():
    assert command_line(["superb", "/data"], Path("/")) == ["superb", "/data"]
