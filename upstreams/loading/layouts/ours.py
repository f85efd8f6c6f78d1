"""The checkpoint of a pretraining of ours, `superb pretrain`, which may still be under way."""

from __future__ import annotations

from benchmark.errors import UpstreamError
from upstreams.loading.layouts.file import Found, TrainingFile
from upstreams.loading.local_file import load_strictly
from upstreams.loading.pretrained import architecture_from, frozen, planned

PREFIX = "encoder."


def recognises(file: TrainingFile) -> bool:
    """Whether a file has the weights of an objective of ours, its encoder among them."""
    return file.key == "objective"


def read(file: TrainingFile) -> Found:
    """The encoder in it.

    Raises:
        UpstreamError: it is of a version that did not yet keep its architecture, or is damaged.
    """
    settings = file.content.get("encoder")
    if not isinstance(settings, dict):
        raise UpstreamError(
            f"{file.path} is of a pretraining that does not say what its encoder is; go on with "
            "it, and take the folder that it ends with"
        )
    file.settings({}).read({})
    architecture = architecture_from(settings, f"{file.path}: encoder")
    encoder = planned(architecture)
    inside = {
        name.removeprefix(PREFIX): weight
        for name, weight in file.weights.items()
        if name.startswith(PREFIX)
    }
    load_strictly(encoder, inside, {name: name for name in encoder.state_dict()}, str(file.path))
    left_out = sorted({n.split(".")[0] for n in file.weights if not n.startswith(PREFIX)})
    note = "a pretraining that may be under way"
    card = file.card(architecture, settings.get("family", "other"), "", note=note)
    steps = file.content.get("step")
    said = {"steps": f"{steps:,}"} if isinstance(steps, int) else {}
    return Found(frozen(encoder, card), "superb pretrain", said, tuple(left_out))
