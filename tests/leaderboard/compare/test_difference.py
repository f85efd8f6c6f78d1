import dataclasses
import itertools

import numpy as np
import pytest

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError
from benchmark.metrics import score
from benchmark.scoring.results import read_records, read_result, run_id, write_result
from leaderboard.compare.difference import pair_results


def test_difference_of_two_results(save):
    last = save("hubert", "ks", "last", 50.0)
    mixed = save("hubert", "ks", "weighted-sum", 60.0)
    found = pair_results(last, mixed).difference

    def share(path):
        counts = [
            record.values["accuracy"] for rows in read_records(path).values() for record in rows
        ]
        return 100 * sum(top for top, _ in counts) / sum(bottom for _, bottom in counts)

    assert found.value == pytest.approx(share(mixed) - share(last))
    assert found.low < found.value < found.high
    assert (found.clusters, found.utterances) == (4, 12)
    turned = pair_results(mixed, last).difference
    assert (turned.value, turned.low) == pytest.approx((-found.value, -found.high))


def test_other_metric(save):
    last, mixed = (save("hubert", "asr", layer, 50.0) for layer in ("last", "weighted-sum"))
    assert pair_results(last, mixed, metric="cer").difference.value == pytest.approx(
        pair_results(last, mixed).difference.value
    )
    with pytest.raises(SuperbError, match=r"no metric 'per'.*cer, wer"):
        pair_results(last, mixed, metric="per")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"seeds": (0,)}, "seeds"),
        ({"corpus_sha256": "d1" * 32}, "corpus"),
        ({"version": 2}, "task version"),
        ({"protocol_version": 2}, "protocol"),
        ({"skipped": ("x.wav",)}, r"the utterances left out \(none and x\.wav\)"),
    ],
)
def test_what_cannot_be_compared(save, changes, word):
    last = save("hubert", "ks", "last", 50.0)
    other = save("hubert", "ks", "weighted-sum", 60.0, **changes)
    with pytest.raises(SuperbError, match=f"differ in {word}"):
        pair_results(last, other)


def test_other_audio_cannot_be_compared_but_what_does_not_say_can(save):
    unknown = save("hubert", "ks", "last", 50.0)
    one = save("apc", "ks", "last", 50.0, audio_sha256="a1" * 32)
    other = save("npc", "ks", "last", 60.0, audio_sha256="b2" * 32)
    assert pair_results(unknown, other).difference.value == 0
    with pytest.raises(SuperbError, match="differ in audio"):
        pair_results(one, other)


def with_identity(path, **changes):
    """The same result under another identity, beside the first."""
    found = read_result(path)
    identity = {**found.identity, **changes}
    other = dataclasses.replace(found, identity=identity, run_id=run_id(identity))
    return write_result(path.parents[2], other, read_records(path))


def test_another_engine_is_another_benchmark(save):
    path = save("hubert", "ks", "last", 50.0)
    with pytest.raises(SuperbError, match=r"differ in engine version \(None and 2\)"):
        pair_results(path, with_identity(path, engine=2))


def test_other_language_models_are_compared_without_them_only(save):
    path = save("hubert", "asr", "last", 20.0)
    found = read_result(path)
    score = found.metrics["wer"]
    rows = {
        seed: [replace_counts(record) for record in records]
        for seed, records in read_records(path).items()
    }
    extra = {**found.downstream["metrics"][0], "name": "wer_lm"}
    card = {**found.downstream, "metrics": [*found.downstream["metrics"], extra]}
    metrics = {**found.metrics, "wer_lm": score}
    scored = dataclasses.replace(found, downstream=card, metrics=metrics)
    path = write_result(path.parents[2], scored, rows)
    other = with_identity(path, lm={"model": "ab" * 32})
    assert pair_results(path, other).difference.value == 0
    assert pair_results(path, path, metric="wer_lm").difference.value == 0
    with pytest.raises(SuperbError, match="differ in the language model"):
        pair_results(path, other, metric="wer_lm")


def replace_counts(record):
    return dataclasses.replace(record, values={**record.values, "wer_lm": record.values["wer"]})


def test_failed_results(save):
    last, other = (save("hubert", "ks", layer, None) for layer in ("last", "weighted-sum"))
    with pytest.raises(SuperbError, match="failed"):
        pair_results(last, other)


def test_same_audio_left_out_can_be_compared(save):
    last = save("hubert", "ks", "last", 50.0, skipped=("x.wav", "y.wav"))
    other = save("hubert", "ks", "weighted-sum", 60.0, skipped=("y.wav", "x.wav"))
    assert pair_results(last, other).difference.clusters == 4


def test_a_result_and_itself(save):
    path = save("hubert", "ks", "last", 50.0)
    found = pair_results(path, path)
    assert found.identical
    assert (found.difference.low, found.difference.value, found.difference.high) == (0, 0, 0)
    assert found.difference.p_value == found.check_p_value == 1
    assert found.difference.detectable() > 0


EER = {"name": "eer", "direction": "lower", "statistic": "equal-error-rate", "unit": "%"}


def write_trials(tmp_path, result, layer, shift):
    """Trials between eight speakers, the same for all; `shift` parts targets from the others."""
    rng = np.random.default_rng(0)
    made = result("hubert", "ks", layer, 50.0, seeds=(0, 1))
    card = {**made.downstream, "metrics": [EER]}
    made = dataclasses.replace(made, downstream=card, metrics={"eer": made.metrics["accuracy"]})
    records = {seed: [] for seed in made.seeds}
    for seed, place in itertools.product(made.seeds, range(160)):
        speaker, target = place % 8, place % 2
        other = speaker if target else (speaker + 1 + place % 5) % 8
        score = rng.normal(0, 1) + shift * target
        records[seed].append(
            Record(f"t{place}", (f"s{speaker}", f"s{other}"), "", "", {"eer": (score, target)})
        )
    return write_result(tmp_path / "results", made, records)


def test_error_rates_of_trials_are_paired_without_a_check(tmp_path, result):
    last = write_trials(tmp_path, result, "last", 1.0)
    mixed = write_trials(tmp_path, result, "weighted-sum", 2.0)
    found = pair_results(last, mixed)
    expected = [np.mean([score(rows, Metric(**EER)) for rows in read_records(path).values()])
                for path in (last, mixed)]  # fmt: skip
    assert found.difference.value == pytest.approx(expected[1] - expected[0])
    assert found.difference.low < found.difference.value < found.difference.high < 0
    assert (found.difference.clusters, found.difference.utterances) == (8, 160)
    assert (found.check, found.check_p_value, found.identical) == ("", None, False)
    assert pair_results(last, last).identical
