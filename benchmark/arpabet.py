"""The phones of American English as the CMU Pronouncing Dictionary writes them (ARPAbet).

Vowels carry their stress: 0 for none, 1 for primary, 2 for secondary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "vowel": ("AA", "AE", "AH", "AO", "EH", "ER", "IH", "IY", "UH", "UW"),
    "diphthong": ("AW", "AY", "EY", "OW", "OY"),
    "stop": ("B", "D", "G", "K", "P", "T"),
    "affricate": ("CH", "JH"),
    "fricative": ("DH", "F", "HH", "S", "SH", "TH", "V", "Z", "ZH"),
    "nasal": ("M", "N", "NG"),
    "approximant": ("L", "R", "W", "Y"),
    "other": ("SIL", "SPN"),
}
"""Manner of articulation → phones without stress; silence and noise come last."""

_CLASS_OF: Final = {phone: name for name, phones in CLASSES.items() for phone in phones}
_VOWELS: Final = {*CLASSES["vowel"], *CLASSES["diphthong"]}

PHONES: Final = tuple(
    sorted(
        phone + stress
        for phones in CLASSES.values()
        for phone in phones
        for stress in (("0", "1", "2") if phone in _VOWELS else ("",))
    )
)
"""All 71: 15 vowels in three stresses, 24 consonants, silence and noise."""


def without_stress(phone: str) -> str:
    """A vowel without its stress; anything else as it is.

    >>> without_stress("AH0"), without_stress("K"), without_stress("ma1")
    ('AH', 'K', 'ma1')
    """
    return phone[:-1] if phone[:-1] in _VOWELS and phone[-1:] in "012" else phone


def class_of(phone: str) -> str | None:
    """Its manner of articulation, stress or none; None for what is no phone of English."""
    return _CLASS_OF.get(without_stress(phone))
