"""Mixtures of Gaussians with diagonal covariances, one for each state, by Kaldi's estimation.

Expectation maximisation within each state, whose frames an alignment gives; components are split
where there are many frames (Young 1994, "The HTK hidden Markov model toolkit", section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from downstreams.markov.kaldi import kaldi

_SPREAD: Final = 0.01  # of the means of a component that is split
# Frames to the power of this is the share of components that a state gets.
_POWER: Final = 0.2
_LEAST: Final = 20.0  # frames for each component
_AT_ONCE: Final = 512

Frames = NDArray[np.float32]


class Mixtures:
    """The mixtures of all states."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - an AmDiagGmm of Kaldi
        self.model = model
        pdfs = [model.get_pdf(state) for state in range(model.num_pdfs)]
        # log N(x) = constant + x · (mean / variance) + x² · (-1 / 2 variance), for all at once
        self._linear = np.concatenate([pdf.means_invvars for pdf in pdfs]).T
        self._square = -0.5 * np.concatenate([pdf.inv_vars for pdf in pdfs]).T
        self._constant = np.concatenate([pdf.gconsts for pdf in pdfs])
        components = [pdf.num_gauss for pdf in pdfs]
        self._first = np.cumsum([0, *components[:-1]])
        self._state = np.repeat(np.arange(len(pdfs)), components)

    def scores(self, frames: Frames) -> NDArray[np.float32]:
        """Log likelihoods ``[frame, state]`` of frames ``[frame, dim]``."""
        parts = []
        for begin in range(0, len(frames), _AT_ONCE):
            own = frames[begin : begin + _AT_ONCE]
            each = self._constant + own @ self._linear + own**2 @ self._square
            most = np.maximum.reduceat(each, self._first, axis=1)
            each = np.exp(each - most[:, self._state])
            parts.append(most + np.log(np.add.reduceat(each, self._first, axis=1)))
        return np.concatenate(parts).astype(np.float32)

    @classmethod
    def single(
        cls, frames: Sequence[Frames], states: Sequence[NDArray[np.int64]], count: int
    ) -> Mixtures:
        """One Gaussian for each state, of the frames that an alignment gives it."""
        total = sum(map(len, frames))
        mean = sum(own.sum(axis=0, dtype=np.float64) for own in frames) / total
        spread = sum(((own - mean) ** 2).sum(axis=0, dtype=np.float64) for own in frames) / total
        gmm = kaldi().gmm
        all_frames = gmm.DiagGmm(1, len(mean))
        all_frames.set_weights(np.ones(1, np.float32))
        inverse = (1 / np.maximum(spread, 1e-6))[None].astype(np.float32)
        all_frames.set_invvars_and_means(inverse, mean[None].astype(np.float32))
        all_frames.compute_gconsts()
        model = gmm.AmDiagGmm()
        model.init(all_frames, count)
        return cls(model).improved(frames, states, 0)

    def improved(
        self, frames: Sequence[Frames], states: Sequence[NDArray[np.int64]], components: int
    ) -> Mixtures:
        """One step of expectation maximisation, and splits up to so many components in all."""
        gmm = kaldi().gmm
        flags = gmm.str_to_gmm_flags("mvw")
        model = gmm.AmDiagGmm()
        model.copy_from_am_diag_gmm(self.model)
        sums = gmm.AccumAmDiagGmm()
        sums.init(model, flags)
        occupied = np.zeros(model.num_pdfs, np.float32)
        for own, of_frames in zip(frames, states, strict=True):
            for frame, state in zip(own, of_frames.tolist(), strict=True):
                sums.accumulate_for_gmm(model, frame, state, 1.0)
            np.add.at(occupied, of_frames, 1)
        gmm.mle_am_diag_gmm_update(gmm.MleDiagGmmOptions(), sums, flags, model)
        if components > model.num_gauss:
            model.split_by_count(occupied, components, _SPREAD, _POWER, _LEAST)
        return Mixtures(model)
