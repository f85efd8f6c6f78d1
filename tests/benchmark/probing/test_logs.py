"""What TensorBoard is given to read."""

from contextlib import ExitStack

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmark.probing.fit import Look, Probe, ProbeSpec
from benchmark.probing.layers import Mix
from benchmark.probing.logs import Logs


def test_every_probe_is_a_run_and_every_look_a_point(tmp_path):
    probes = [
        Probe(ProbeSpec(mix, 1e-3, 0), None, None, None, None)
        for mix in (Mix(None), Mix(None, True), Mix(4))
    ]
    with ExitStack() as resources:
        listen = Logs(tmp_path, "ks", "org/model", "accuracy", resources)
        for update in (10, 20):
            for number, probe in enumerate(probes):
                probe.updates = update
                listen(probe, Look(update, 0.5, 10.0 * number + update, 0.25))
    folder = tmp_path / "ks" / "org%2Fmodel"
    assert {path.name for path in folder.iterdir()} == {
        "weighted-sum, 0.001, seed 0",
        "weighted-sum-norm, 0.001, seed 0",
        "layer 4, 0.001, seed 0",
    }
    events = EventAccumulator(str(folder / "layer 4, 0.001, seed 0")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("valid/accuracy")] == [(10, 30), (20, 40)]
    assert events.Scalars("train/loss")[0].value == pytest.approx(0.5)
    assert events.Scalars("valid/loss")[0].value == pytest.approx(0.25)
