"""Another file is another run; another place is not."""

from __future__ import annotations

import pytest

from benchmark.identity import source_sha256
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


def test_what_is_ours_has_none():
    assert source_sha256(load_downstream("ks")) == ""


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
            self.card = object()

    assert source_sha256(Mine(1)) == source_sha256(Mine(1)) != source_sha256(Mine(2))
    assert source_sha256(Mine(lambda: 1)) != ""
