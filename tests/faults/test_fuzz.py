"""Some hundred damaged files of each kind: a value or one error, nothing else."""

from __future__ import annotations

import pytest

from tests.faults.fuzz import KINDS, Outcome, fuzz

EXAMPLES = {"result": 30, "audio": 100, "checkpoint": 60}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_whatever_the_bytes(kind):
    outcome = Outcome()
    fuzz(kind, EXAMPLES.get(kind.name, 150), outcome, derandomize=True)
    # else the files are too sound, or too damaged, to say anything
    assert min(outcome.counts["accepted"], outcome.counts["refused"]) >= 3
