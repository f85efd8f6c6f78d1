"""Texts of the corpus `mini`: a small grammar of everyday English sentences.

Some words are held out: they occur in the sentences of one split only. Without them a recogniser
could score well by remembering two hundred whole words; with them it has to spell what it hears.
"""

from collections.abc import Mapping

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS: Mapping[str, tuple[str, ...]] = {
    "name": _words(
        "anna peter maria thomas helen david rosa martin julia oscar"
        " clara hugo nina felix laura simon"
    ),
    "person": _words(
        "farmer teacher doctor sailor baker driver girl boy painter nurse singer"
        " neighbor uncle brother pilot gardener"
    ),
    "animal": _words("dog cat horse bird fox goat rabbit donkey duck sheep wolf pony"),
    "thing": _words(
        "basket letter lamp book ladder bottle blanket hammer ring ticket guitar camera"
        " ball clock suitcase pencil bucket shovel"
    ),
    "food": _words("bread soup cheese honey rice jam cake butter fish salad pumpkin chocolate"),
    "fixture": _words(
        "door window gate kitchen table cupboard fence wall bench oven drawer mirror"
    ),
    "place": _words(
        "garden river market forest station bridge school village harbor church mountain"
        " island castle meadow"
    ),
    "adjective": _words(
        "old young small tall quiet clever tired lazy happy little strange famous gentle nervous"
    ),
    "quality": _words(
        "red green heavy new broken yellow empty wooden blue dusty simple silver narrow"
    ),
    "rest": _words("slept waited played sang rested stumbled"),
    "wander": _words("walked ran jumped danced wandered hurried"),
    "where": ("near", "behind", "beside", "across from"),
    "way": ("along", "past", "around", "toward"),
    "when": (
        "yesterday",
        "today",
        "this morning",
        "last night",
        "every evening",
        "in winter",
        "before lunch",
        "after dinner",
    ),
    "manner": ("slowly", "quietly", "alone", "again", "together", "carefully"),
    "whose": ("my", "your", "her", "our", "their"),
}

# Verbs as (plain form, past form), by the kind of object they take.
VERBS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "thing": (
        ("carry", "carried"),
        ("find", "found"),
        ("lose", "lost"),
        ("hide", "hid"),
        ("buy", "bought"),
        ("bring", "brought"),
        ("sell", "sold"),
        ("borrow", "borrowed"),
    ),
    "food": (
        ("cook", "cooked"),
        ("eat", "ate"),
        ("taste", "tasted"),
        ("share", "shared"),
        ("order", "ordered"),
    ),
    "fixture": (
        ("open", "opened"),
        ("close", "closed"),
        ("paint", "painted"),
        ("clean", "cleaned"),
        ("repair", "repaired"),
    ),
    "animal": (
        ("feed", "fed"),
        ("follow", "followed"),
        ("watch", "watched"),
        ("call", "called"),
        ("chase", "chased"),
    ),
}

# Which adjectives go with which nouns: a bottle is not clever.
ADJECTIVES: Mapping[str, str] = {
    "person": "adjective",
    "animal": "adjective",
    "thing": "quality",
    "fixture": "quality",
}

HELD_OUT: Mapping[str, frozenset[str]] = {
    "valid": frozenset(
        _words("felix gardener pony bucket salad drawer island dusty borrow borrowed")
    ),
    "test": frozenset(
        _words(
            "laura simon uncle pilot wolf sheep suitcase pencil shovel pumpkin chocolate"
            " mirror meadow castle nervous gentle silver narrow wandered hurried stumbled"
            " carefully together chase chased"
        )
    ),
}

# A word starting with "$" is filled in by `_fill`, any other word stands for itself.
TEMPLATES = (
    "$who $did $object",
    "$who $did $object",
    "$who $did $object $spot",
    "$when $who $did $object",
    "$who $did $object $when",
    "$who $did $object $manner",
    "$creature $rest $spot",
    "$creature $wander $path",
    "$creature $wander $manner $path",
    "$who $rest $spot $when",
    "$who didn't $do $object",
    "$who wants to $do $object",
    "did $who $do $object $when",
    "please $do $object $when",
    "can you $do $object",
    "let's $do $object $when",
    "where is $whose $quality $thing",
    "there is $a_thing $spot",
    "$whose $thing is under the $fixture",
    "who $did $object $when",
    "don't $do $object",
    "the $fixture $spot was $quality",
)


class _Draw:
    """Random choices among the words that one split may use."""

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        self.rng = rng
        self.barred = frozenset[str]().union(
            *(words for other, words in HELD_OUT.items() if other != split)
        )

    def word(self, kind: str) -> str:
        allowed = [word for word in WORDS[kind] if word not in self.barred]
        return allowed[self.rng.integers(len(allowed))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def noun(self, kind: str) -> str:
        if kind == "food":
            return f"{('some', 'the')[self.rng.integers(2)]} {self.word(kind)}"
        words = [self.word(ADJECTIVES[kind])] if self.chance(0.4) else []
        words.append(self.word(kind))
        start = self.rng.integers(4)
        if start == 0:
            return " ".join([_article(words[0]), *words])
        return " ".join([self.word("whose") if start == 1 else "the", *words])

    def action(self) -> tuple[str, str, str]:
        """A verb's plain and past form, and an object that it can take."""
        kind = tuple(VERBS)[self.rng.integers(len(VERBS))]
        verbs = [pair for pair in VERBS[kind] if not self.barred.intersection(pair)]
        plain, past = verbs[self.rng.integers(len(verbs))]
        return plain, past, self.noun(kind)


def _article(following: str) -> str:
    return "an" if following[0] in "aeio" else "a"


def _fill(draw: _Draw, slot: str, action: tuple[str, str, str]) -> str:
    plain, past, target = action
    if slot == "who":
        return draw.word("name") if draw.chance(0.4) else draw.noun("person")
    if slot == "creature":
        return draw.noun("animal" if draw.chance(0.5) else "person")
    if slot == "a_thing":
        quality = draw.word("quality")
        return f"{_article(quality)} {quality} {draw.word('thing')}"
    if slot == "spot":
        return f"{draw.word('where')} the {draw.word('place')}"
    if slot == "path":
        return f"{draw.word('way')} the {draw.word('place')}"
    fixed = {"do": plain, "did": past, "object": target}
    return fixed[slot] if slot in fixed else draw.word(slot)


def sentence(rng: np.random.Generator, split: str) -> str:
    """Draw one sentence of three to nine lower-case words that `split` may use."""
    draw = _Draw(rng, split)
    while True:
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        action = draw.action()
        text = " ".join(
            _fill(draw, part[1:], action) if part.startswith("$") else part
            for part in template.split()
        )
        if 3 <= len(text.split()) <= 9:
            return text
