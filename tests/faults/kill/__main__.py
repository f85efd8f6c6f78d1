"""Kill runs, take their disks away, and compare what they come to: python -m tests.faults.kill."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.faults.kill.scenes import SCENES, SLOW, Round
from tests.faults.kill.warm import ONE_THREAD, warm_up
from tests.faults.kill.world import make_works, shrink

_NEEDS = {"run": ["run"], "pretrain": ["pretrain"], "once": ["run"], "clock": ["run"],
          "workers": ["run"]}  # fmt: skip


def main() -> int:
    """Print a Markdown table; the exit code is 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="rounds of each scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", action="append", choices=list(SCENES))
    asked = parser.parse_args()
    scenarios = asked.scenario or list(SCENES)
    warm_up()
    shrink()
    wrong = 0
    found: dict[str, list[tuple[Round, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        needed = {work for each in scenarios for work in _NEEDS.get(each, ["run", "pretrain"])}
        works = make_works(folder, sorted(needed))
        for scenario in scenarios:
            for number in range(-(-asked.times // SLOW.get(scenario, 1))):
                place = folder / f"{scenario}-{number}"
                place.mkdir()
                chance = random.Random(f"{asked.seed} {scenario} {number}")
                started = time.monotonic()
                try:
                    for each in SCENES[scenario](works, place, chance, number):
                        found[each.kind].append((each, time.monotonic() - started))
                        wrong += bool(each.wrong)
                        for text in each.wrong:
                            print(f"{scenario} {number}: {each.kind}: {text}", file=sys.stderr)
                except PermissionError as error:
                    print(f"{scenario}: not tried: {error}", file=sys.stderr)
                    break
                shutil.rmtree(place)
    print("| What | Rounds | Kills, faults | Refused | Went on | Identical | Seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for kind, rounds in found.items():
        faults, refused, resumed = (
            sum(getattr(each, name) for each, _ in rounds)
            for name in ("faults", "refused", "resumed")
        )
        same = sum(not each.wrong for each, _ in rounds)
        seconds = sum(s for _, s in rounds)
        figures = (len(rounds), faults, refused, resumed, same, round(seconds))
        print(f"| {kind} | {' | '.join(map(str, figures))} |")
    return int(wrong > 0)


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.faults.kill", *sys.argv[1:]],
            {**os.environ, **ONE_THREAD, "OMP_WAIT_POLICY": "PASSIVE"},
        )
    sys.exit(main())
