"""Keyword spotting: which of a few words is said (Yang et al. 2021, section 3.1)."""

from __future__ import annotations

from benchmark.core import DownstreamCard, Metric
from downstreams.classification import Classification


class Ks(Classification):
    """The label of an utterance, from the mean over time of a linear map of its frames."""

    card = DownstreamCard(
        name="ks",
        title="Keyword spotting",
        version=1,
        metrics=(Metric("accuracy", "higher"),),
        features="mean",
        needs=("label",),
        closed_set=True,
        head="linear, mean over time, linear",
    )
