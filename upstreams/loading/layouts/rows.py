"""Files of encoders with a name whose sizes never varied: APC, VQ-APC, NPC and CPC."""

from __future__ import annotations

from benchmark.registry import load_attribute
from upstreams.catalogue import UPSTREAMS
from upstreams.loading.files import shapes
from upstreams.loading.layouts.file import Found, TrainingFile
from upstreams.loading.local_file import bare_shapes
from upstreams.loading.pretrained import planned
from upstreams.loading.rows import with_weights


def recognises(file: TrainingFile) -> bool:
    """Whether a file has just the weights of a row of the catalogue."""
    return _row(file) != ""


def read(file: TrainingFile) -> Found:
    """The encoder in it."""
    file.settings({}).read({})
    name = _row(file)
    upstream = with_weights(name, file.content, file.path, file.origin.name)
    return Found(upstream, f"that of the authors of {name}", {}, ())


def _row(file: TrainingFile) -> str:
    given = bare_shapes(shapes(file.weights))
    for name, entry in UPSTREAMS.items():
        if not entry.layout:
            continue
        layout = load_attribute(entry.layout)
        if layout.key != file.key:
            continue
        architecture = load_attribute(entry.architecture)
        ours = planned(architecture).state_dict()
        wanted = {theirs: ours[own].shape for own, theirs in layout.names(architecture).items()}
        needless = {*layout.ignored(architecture)}
        if bare_shapes(wanted) == {k: v for k, v in given.items() if k not in needless}:
            return name
    return ""
