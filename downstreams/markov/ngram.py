"""Bigrams of words, smoothed as by Witten and Bell (1991), as an ARPA file.

"The zero-frequency problem", method C: a word of which T kinds of others were seen to follow is
followed by a new one with the share T / (c + T).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from benchmark.errors import SuperbError
from downstreams.text import normalise

START, END = "<s>", "</s>"
_NEVER = -99.0  # the start of a sentence is no word


def bigrams(texts: Iterable[str]) -> str:
    """The ARPA file of the bigrams of texts; logarithms to base 10.

    Args:
        texts: one sentence each, words between spaces.
    """
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        words = [START, *text.split(), END]
        pairs.update(pairwise(words))
    counts: Counter[str] = Counter()
    before: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for (first, second), count in pairs.items():
        counts[second] += count
        before[first] += count
        kinds[first] += 1
    total = sum(counts.values())
    alone = {word: count / total for word, count in counts.items()}
    rest = {word: kinds[word] / (before[word] + kinds[word]) for word in before}
    lines = ["\\data\\", f"ngram 1={len(alone) + 1}", f"ngram 2={len(pairs)}", "", "\\1-grams:"]
    lines.append(f"{_NEVER}\t{START}\t{math.log10(rest[START]):.6f}")
    for word in sorted(alone):
        weight = f"\t{math.log10(rest[word]):.6f}" if word in rest else ""
        lines.append(f"{math.log10(alone[word]):.6f}\t{word}{weight}")
    lines += ["", "\\2-grams:"]
    for first, second in sorted(pairs):
        share = pairs[first, second] / (before[first] + kinds[first])
        lines.append(f"{math.log10(share + rest[first] * alone[second]):.6f}\t{first} {second}")
    return "\n".join([*lines, "", "\\end\\", ""])


def read_arpa(path: Path) -> str:
    """The text of an ARPA file.

    Raises:
        SuperbError: it is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuperbError(
            f"--lm {path} cannot be read as an ARPA file, which the heads hmm and gmm-hmm need: "
            f"{error}"
        ) from error
    counts: dict[int, int] = {}
    found: dict[int, int] = {}
    order = 0
    for line in map(str.strip, text.splitlines()):
        if header := re.fullmatch(r"ngram (\d+)\s*=\s*(\d+)", line):
            counts[int(header[1])] = int(header[2])
        elif section := re.fullmatch(r"\\(\d+)-grams:", line):
            order = int(section[1])
            found[order] = 0
        elif line.startswith("\\"):
            order = 0
        elif line and order:
            fields = line.split()
            if len(fields) not in (order + 1, order + 2) or not _is_number(fields[0]):
                raise SuperbError(f"--lm {path}: {line[:60]!r} is no line of {order}-grams")
            found[order] += 1
    words = set(_first_words(text))
    lacking = [mark for mark in (START, END) if mark not in words]
    wrong = (
        "no \\data\\ or no \\1-grams:"
        if "\\data\\" not in text or not found.get(1)
        else f"{found} n-grams by order where its head says {counts}"
        if found != counts
        else "no \\end\\ at its end"
        if not text.rstrip().endswith("\\end\\")
        else f"no {lacking[0]}"
        if lacking
        else ""
    )
    if wrong:
        raise SuperbError(
            f"--lm {path} is no whole ARPA file, which the heads hmm and gmm-hmm need: it has "
            f"{wrong}"
        )
    return text


def words_of(arpa: str) -> list[str]:
    """The words of an ARPA file that are written as transcripts are: in upper case."""
    return [
        word for word in _first_words(arpa) if word == normalise(word) and not word.startswith("<")
    ]


def _first_words(arpa: str) -> list[str]:
    """What the unigrams of an ARPA file are of."""
    _, _, after = arpa.partition("\\1-grams:")
    lines = after.partition("\n\\")[0].splitlines()
    return [fields[1] for line in lines if len(fields := line.split()) > 1]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
