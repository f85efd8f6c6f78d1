"""A corpus in a file of its own: `superb check my_corpus.py:load --data-root FOLDER`."""

from collections.abc import Iterator
from pathlib import Path

from superb import Utterance


def load(data_root: Path) -> Iterator[Utterance]:
    """Recordings of single words: ``SPLIT/SPEAKER/WORD-NUMBER.wav``."""
    for path in sorted(data_root.glob("*/*/*.wav")):
        split, speaker, name = path.relative_to(data_root).parts
        word = name.partition("-")[0]
        yield Utterance(
            id=f"{split}/{speaker}/{path.stem}",
            audio=path,
            split=split,
            speaker=speaker,
            text=word,
            label=word,
        )
