"""Bigrams of words, smoothed as by Witten and Bell (1991), as an ARPA file.

"The zero-frequency problem", method C: a word of which T kinds of others were seen to follow is
followed by a new one with the share T / (c + T).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

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
        pairs.update(zip(words, words[1:], strict=False))
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
