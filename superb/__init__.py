"""superb: a benchmark harness for self-supervised speech encoders.

The public names, all loaded on first use::

    import superb

    encoder = superb.load_upstream("hubert")           # any name, folder, hub id or plug-in
    states = encoder([waveform])                       # HiddenStates: all layers
    results = superb.run(upstream="hubert", downstream="ks", layers=["last", "weighted-sum"])
    results = superb.run_file("experiment.toml")       # the same, written down
    table = superb.load_results("results")             # a pandas DataFrame
    head = superb.load_head(result)                    # of a run with save_heads=True
    answer = head(waveform)                            # a transcript, a label: superb.Answer
    checks = superb.check_upstream(encoder)            # the conformance suite
    checks = superb.check_downstream(MyTask())         # those of tasks and corpora
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmark.answers import Answer, Span
    from benchmark.conformance import Check, check_upstream, raise_for_failures
    from benchmark.core import (
        Corpus,
        Downstream,
        DownstreamCard,
        HiddenStates,
        Metric,
        Record,
        Upstream,
        UpstreamCard,
        Utterance,
    )
    from benchmark.errors import AudioError, SuperbError, UpstreamError
    from benchmark.scoring.results import Result, load_results
    from downstreams.classification import Classification
    from downstreams.corpora.load import load_corpus
    from downstreams.load import load_downstream
    from superb.check import check_corpus, check_downstream
    from superb.predict import load_head
    from superb.running import run, run_file
    from upstreams.loading.load import load_upstream

__version__ = "0.1.0"

_PUBLIC = {
    "Answer": "benchmark.answers",
    "AudioError": "benchmark.errors",
    "Check": "benchmark.conformance",
    "Classification": "downstreams.classification",
    "Corpus": "benchmark.core",
    "Downstream": "benchmark.core",
    "DownstreamCard": "benchmark.core",
    "HiddenStates": "benchmark.core",
    "Metric": "benchmark.core",
    "Record": "benchmark.core",
    "Result": "benchmark.scoring.results",
    "Span": "benchmark.answers",
    "SuperbError": "benchmark.errors",
    "Upstream": "benchmark.core",
    "UpstreamCard": "benchmark.core",
    "UpstreamError": "benchmark.errors",
    "Utterance": "benchmark.core",
    "check_corpus": "superb.check",
    "check_downstream": "superb.check",
    "check_upstream": "benchmark.conformance",
    "load_corpus": "downstreams.corpora.load",
    "load_downstream": "downstreams.load",
    "load_head": "superb.predict",
    "load_results": "benchmark.scoring.results",
    "load_upstream": "upstreams.loading.load",
    "raise_for_failures": "benchmark.conformance",
    "run": "superb.running",
    "run_file": "superb.running",
}

__all__ = [
    "Answer",
    "AudioError",
    "Check",
    "Classification",
    "Corpus",
    "Downstream",
    "DownstreamCard",
    "HiddenStates",
    "Metric",
    "Record",
    "Result",
    "Span",
    "SuperbError",
    "Upstream",
    "UpstreamCard",
    "UpstreamError",
    "Utterance",
    "__version__",
    "check_corpus",
    "check_downstream",
    "check_upstream",
    "load_corpus",
    "load_downstream",
    "load_head",
    "load_results",
    "load_upstream",
    "raise_for_failures",
    "run",
    "run_file",
]


def _check_own_packages() -> None:
    """The engine's packages have plain names; make sure that no other code answers to them."""
    home = Path(__file__).resolve().parent.parent
    for name in ("benchmark", "upstreams", "downstreams", "leaderboard"):
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve().parent != home / name:
            found = origin or (list(spec.submodule_search_locations or []) if spec else "nothing")
            raise ImportError(
                f"superb needs its own package {name!r} ({home / name}), but Python finds {found} "
                "first. Rename that file or folder, or run from another directory."
            )


_check_own_packages()


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'superb' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
