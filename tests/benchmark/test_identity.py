"""Another file is another run; another place is not."""

from __future__ import annotations

import pytest

from benchmark.identity import code_sha256, source_sha256
from benchmark.registry import load_object
from downstreams.load import load_downstream

SOURCE = """
from wording import WORD

class Mine:
    card = "x"

    def say(self):
        return WORD
"""


@pytest.fixture
def sha256(tmp_path):
    def write(folder, source=SOURCE, wording="WORD = 1\n"):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / f"{folder}_wording.py").write_text(wording)
        path = place / "mine.py"
        path.write_text(source.replace("from wording", f"from {folder}_wording"))
        return load_object(f"{path}:Mine")

    return lambda *given, **changes: source_sha256(write(*given, **changes))


def test_of_ours_card_and_settings_count():
    first, again, other = load_downstream("ks"), load_downstream("ks"), load_downstream("sid")
    assert source_sha256(first) == source_sha256(again) != source_sha256(other)
    again.records = lambda utterances, answers: []
    assert source_sha256(again) != source_sha256(first)


def test_code_is_that_of_the_class():
    assert code_sha256(load_downstream("ks")) == code_sha256(load_downstream("ks"))
    assert code_sha256(load_downstream("ks")) != code_sha256(load_downstream("asr"))


def test_what_is_installed_together_counts(tmp_path, monkeypatch):
    """A task in one installed module, its head in another."""
    site = tmp_path / "site-packages"
    information = site / "tasks-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tasks\nVersion: 1.0\n")
    (information / "top_level.txt").write_text("my_task_a\nmy_head_a\n")
    (site / "my_task_a.py").write_text("import my_head_a, other_a\n\nclass Mine:\n    card = 1\n")
    (site / "my_head_a.py").write_text("SIZE = 1\n")
    (site / "other_a.py").write_text("SIZE = 1\n")
    monkeypatch.syspath_prepend(site)
    mine = load_object("my_task_a:Mine")
    first = source_sha256(mine)
    (site / "other_a.py").write_text("SIZE = 2\n")
    assert source_sha256(mine) == first
    (site / "my_head_a.py").write_text("SIZE = 2\n")
    assert source_sha256(mine) != first


def test_the_file_and_what_it_imports_count(sha256):
    first = sha256("a")
    assert len(first) == 64
    assert sha256("a") == first
    assert sha256("a", source=SOURCE + "# more\n") != first
    assert sha256("a", wording="WORD = 2\n") != first


def test_settings_count():
    class Mine:
        def __init__(self, size):
            self.size = size
            self.card = "card"

    assert source_sha256(Mine(1)) == source_sha256(Mine(1)) != source_sha256(Mine(2))
    assert source_sha256(Mine(lambda: 1)) != ""
