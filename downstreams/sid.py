"""Speaker identification: who of the speakers of train speaks (Yang et al. 2021, section 3.1)."""

from __future__ import annotations

from benchmark.core import DownstreamCard, Metric
from downstreams.classification import Classification


class Sid(Classification):
    """The speaker of an utterance, from the mean over time of a linear map of its frames."""

    card = DownstreamCard(
        name="sid",
        title="Speaker identification",
        version=1,
        metrics=(Metric("accuracy", "higher"),),
        features="mean",
        needs=("speaker",),
        closed_set=True,
        label_from="speaker",
        head="linear, mean over time, linear",
    )
