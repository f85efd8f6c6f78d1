"""The parts of Kaldi that are used, from the package index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmark.errors import SuperbError


class Kaldi(NamedTuple):
    """Its packages: mixtures, search, transducers and language models."""

    gmm: Any
    decoder: Any
    fst: Any
    lm: Any


def kaldi() -> Kaldi:
    """Import them.

    Raises:
        SuperbError: one is not installed.
    """
    try:
        # in this order: kaldi_hmm_gmm never returns from its import after kaldifst
        import kaldi_hmm_gmm as gmm  # isort: skip
        import kaldi_decoder as decoder  # isort: skip
        import kaldifst as fst  # isort: skip
        import kaldilm as lm  # isort: skip
    except ImportError as error:
        raise SuperbError(
            f"the heads hmm and gmm-hmm need packages of Kaldi, and {error.name} is not installed: "
            "type pip install 'superb[hmm]', or choose --head ctc, attention or transducer"
        ) from error
    return Kaldi(gmm, decoder, fst, lm)


@contextmanager
def silenced() -> Iterator[None]:
    """Nothing written to standard error, where C++ tells what it reads."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
