"""The main job on the bundled speech, by the default protocol but for a short ASR at one rate."""

from __future__ import annotations

import pytest

from benchmark.progress import Progress
from benchmark.scoring.results import read_records, result_path
from superb.running import run


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("main-job")
    protocol = folder / "shorter.toml"
    protocol.write_text(
        'name = "shorter"\nversion = 1\nsummary = "mini"\nbase = "mini"\n'
        "[asr]\nlearning_rates = [3e-3]\nupdates = 600\nhalving = []\n"
    )
    found = run(
        "fbank",
        ["asr", "sid", "ks"],  # the other tasks' heads are of the same kinds
        protocol=str(protocol),
        layers="last",
        output=folder / "results",
        cache_dir=folder / "cache",
        progress=Progress(quiet=True),
    )
    return folder, {result.downstream["name"]: result for result in found}


@pytest.mark.parametrize(
    ("task", "low", "high"), [("asr", 20, 92), ("sid", 30, 85), ("ks", 30, 85)]
)
def test_fbank_leaves_room_above_and_below(results, task, low, high):
    """`mini` can show better and worse encoders than FBANK, and heads do learn on it."""
    _, found = results
    result = found[task]
    assert result.status == "finished"
    value = result.metrics[result.downstream["metrics"][0]["name"]]["value"]
    assert low < value < high


def test_ctc_really_writes(results):
    """A head that outputs blanks is not a result."""
    folder, found = results
    path = result_path(folder / "results", "asr", "fbank", found["asr"].run_id)
    (records,) = read_records(path).values()
    assert found["asr"].metrics["cer"]["value"] < 40
    words = sum(len(record.hypothesis.split()) for record in records)
    spoken = sum(len(record.reference.split()) for record in records)
    assert words == pytest.approx(spoken, rel=0.2)


def test_the_chosen_rates_lie_inside_their_grids(results):
    _, found = results
    assert not any(found[task].learning_rate_at_edge for task in ("sid", "ks"))
