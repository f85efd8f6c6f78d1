"""What tables ask of one result, each question once: another shape of file is met here alone."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.core import Metric, Record
from benchmark.errors import SuperbError
from benchmark.scoring.results import MetricValue, Result, card_metrics


def metric_of(result: Result) -> str:
    """The metric that ranks."""
    return card_metrics(result)[0].name


def find_metric(result: Result, name: str) -> Metric:
    """What the task's card says of one of its metrics."""
    return next(metric for metric in card_metrics(result) if metric.name == name)


def score_of(result: Result) -> MetricValue | None:
    """Test score by the metric that ranks; None when the run failed."""
    return result.metrics.get(metric_of(result)) if result.status == "finished" else None


def scores_by_seed(result: Result) -> dict[int, dict[str, float]]:
    """Test scores of each seed by metric; empty where the result does not say."""
    return {entry["seed"]: entry["metrics"] for entry in result.per_seed}


def columns_of(result: Result) -> tuple[str, ...]:
    """The columns that its task reads; earlier results of the same task say the same."""
    needs = result.downstream.get("needs")
    return tuple(map(str, needs)) if isinstance(needs, list | tuple) else ()


def labels_of(result: Result) -> str:
    """How much of train its heads were told the labels of, as it was typed; "" for all."""
    found = result.corpus.get("labels")
    return str(found.get("text", "")) if isinstance(found, dict) else ""


def train_seconds(result: Result) -> float | None:
    """How much of train its heads were told the labels of; None where the result does not say."""
    if budget := identity_of(result, "labels", "seconds"):
        return float(budget)
    hours = result.corpus.get("splits", {}).get("train", {}).get("hours")
    return 3600 * float(hours) if hours else None


def base_of(result: Result) -> str:
    """The task that its own is a variant of; its own if it is of none."""
    return str(result.downstream.get("base") or result.downstream["name"])


def valid_of(result: Result) -> float | None:
    """Score on valid by the metric that ranks, mean over seeds; None unless all have one.

    Nor with folds, of which one's valid is another's test: all of them together are all of test.
    """
    if result.folds:
        return None
    scores = [entry["valid"] for entry in result.per_seed]
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known and len(known) == len(scores) else None


def learning_rate_of(result: Result) -> str:
    """The learning rate chosen on valid, in words; "" when the run failed.

    A finished run of a task that trains nothing has "none"; one whose partitions chose different
    ones has "by fold".
    """
    if not is_trained(result):
        return "none"
    if result.learning_rate is not None:
        return f"{result.learning_rate:g}"
    return "by fold" if result.status == "finished" else ""


def counts_of(record: Record, metric: str) -> tuple[float, float]:
    """Numerator and denominator that one utterance adds to a metric; of a mean, its value and 1.

    Raises:
        SuperbError: when it adds none: the metric is then no ratio of sums over utterances.
    """
    values = record.values.get(metric, ())
    if len(values) == 1:
        return values[0], 1
    if len(values) != 2:
        raise SuperbError(f"{metric} has no counts of utterance {record.id} in these results")
    return values[0], values[1]


def is_trained(result: Result) -> bool:
    """False for a task that trains nothing, whose results have 0 for a learning rate."""
    return result.learning_rate != 0


def over_reruns(result: Result) -> bool:
    """Whether its interval is over seeds as well: up to schema 2 it held speakers alone."""
    return len(result.seeds) > 1 and result.schema > 2


def layer_count(result: Result) -> int:
    """Hidden layers of the encoder; 0 when its card does not say."""
    count = result.upstream.get("layers")
    return count if isinstance(count, int) else 0


def skipped_utterances(result: Result) -> tuple[str, ...]:
    """Ids of the utterances that a run left out, sorted."""
    return tuple(sorted({str(skipped["utterance"]) for skipped in result.skipped_audio}))


def source_of(result: Result) -> str:
    """Where the weights of the encoder are from; "" when its card does not say."""
    return str(result.upstream.get("source") or "")


def audio_of(result: Result) -> str:
    """The sha256 of the corpus's audio; "" when the result does not say."""
    return str(result.corpus.get("audio_sha256") or "")


def channel_of(result: Result) -> str:
    """The channel of the recordings that was heard; "" for the mean of all."""
    return str(result.identity.get("channel", ""))


def engine_of(result: Result) -> str:
    """Version of what trained and scored; "" when the result does not say."""
    return str(result.identity.get("engine", ""))


def lexicon_of(result: Result) -> str:
    """Hash of the words, their phones and the n-gram that a head finds words by; "" for none."""
    return str(result.identity.get("lexicon", ""))


def identity_of(result: Result, part: str, key: str) -> str:
    """An entry of a part of the identity, such as the fingerprint of the upstream; "" for none."""
    entry = result.identity.get(part)
    return str(entry.get(key, "")) if isinstance(entry, Mapping) else ""


def weights_of(result: Result) -> str:
    """Hash of the encoder's weights and settings, whatever computed with them; "" if not told."""
    found = result.encoder.get("weights_sha256")
    return found if isinstance(found, str) else ""
