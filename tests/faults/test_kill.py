"""A few rounds of the harness in a process of its own, since it forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_killed_runs_come_to_the_same():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.faults.kill", "--times", "3", "--seed", "1"),
            *("--scenario", "run"),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run, killed") == 2, done.stdout
