"""Texts of the corpus `mini`: spoken commands with an intent and marked slot values.

One command serves intent classification, as in Fluent Speech Commands (Lugosch et al. 2019), and
slot filling, as in Audio SNIPS (Lai et al. 2021). Some slot values are held out, as words are in
`grammar`: they occur in one split only. No value of an intent is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

NOWHERE = "none"

# What differs between intents is chosen to sound different, down to the values: foods hiss, names
# and songs hum. The mean of a command's spectrum, all that a linear head sees, tells little else.
VALUES: Mapping[str, tuple[str, ...]] = {
    "time": ("six", "seven", "half past six", "half past seven", "eight", "half past eight"),
    "person": ("anna", "maria", "nina", "helen", "rosa", "laura", "julia", "oscar", "simon"),
    "food": ("cheese", "rice", "fish", "soup", "juice", "chips", "sauce", "salad"),
    "song": (
        "blue moon",
        "yellow river",
        "my morning",
        "no more rain",
        "blue river",
        "yellow moon",
        "more rain",
    ),
}

HELD_OUT: Mapping[str, frozenset[str]] = {
    "valid": frozenset({"oscar", "sauce", "yellow moon"}),
    "test": frozenset({"half past eight", "laura", "simon", "salad", "blue river"}),
}

# (action, object) → locations that it may have, wordings. Of "{a|b}" one is drawn; "$time" stands
# for a marked value, "$room" for the location, "$where" for "in the" and it; both may be nothing.
INTENTS: Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]] = {
    ("activate", "lights"): (
        (NOWHERE, "kitchen", "bedroom"),
        (
            "switch on the $room <device>lights</device>",
            "switch the $room <device>lights</device> on {please|}",
            "start the $room <device>lights</device> {at $time|}",
        ),
    ),
    ("deactivate", "lamp"): (
        (NOWHERE, "kitchen", "bedroom"),
        (
            "turn off the $room <device>lamp</device>",
            "turn the $room <device>lamp</device> off {now|}",
        ),
    ),
    ("increase", "heat"): (
        (NOWHERE, "bedroom"),
        (
            "make it {much|} warmer $where {now|}",
            "more warm air $where {please|}",
        ),
    ),
    ("activate", "music"): ((NOWHERE,), ("play $song {now|}", "play $song for $person")),
    ("activate", "alarm"): (
        (NOWHERE,),
        ("wake {me|$person} at $time", "set the <device>alarm</device> at $time"),
    ),
    ("call", "phone"): ((NOWHERE,), ("call $person {now|again}", "ring $person {now|again}")),
    ("bring", "food"): (
        (NOWHERE,),
        ("{bring|get} {me|us} some $food {please|}", "{bring|get} $person some $food"),
    ),
}


@dataclass(frozen=True)
class Command:
    """One command: its text with slot values in tags, and the three parts of its intent."""

    tagged: str
    action: str
    object: str
    location: str

    @property
    def text(self) -> str:
        """The words alone."""
        return re.sub(r"<[^>]*>", "", self.tagged)


def command(rng: np.random.Generator, split: str) -> Command:
    """Draw a command of three to eight words that `split` may use; see `INTENTS`."""
    intents = [(*what, place) for what, (places, _) in INTENTS.items() for place in places]
    action, target, location = intents[rng.integers(len(intents))]
    barred = frozenset[str]().union(
        *(values for other, values in HELD_OUT.items() if other != split)
    )

    def one(options: tuple[str, ...] | list[str]) -> str:
        return options[rng.integers(len(options))]

    def value(found: re.Match[str]) -> str:
        allowed = [value for value in VALUES[found[1]] if value not in barred]
        return f"<{found[1]}>{one(allowed)}</{found[1]}>"

    wordings = INTENTS[action, target][1]
    room = "" if location == NOWHERE else f"<room>{location}</room>"
    where = room and f"in the {room}"
    while True:
        tagged = one(wordings).replace("$where", where).replace("$room", room)
        tagged = re.sub(r"\{([^}]*)\}", lambda found: one(found[1].split("|")), tagged)
        tagged = " ".join(re.sub(r"\$(\w+)", value, tagged).split())
        drawn = Command(tagged, action, target, location)
        if 3 <= len(drawn.text.split()) <= 8:
            return drawn
