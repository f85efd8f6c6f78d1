"""Mixtures of Gaussians with diagonal covariances, one for each state, by Kaldi's estimation.

Expectation maximisation within each state, whose frames an alignment gives; components are split
where there are many frames (Young 1994, "The HTK hidden Markov model toolkit", section 4). They are
split here and not by Kaldi, which draws at random where it moves them, another way in each run.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from downstreams.markov.kaldi import kaldi

_SPREAD: Final = 0.2  # deviations that the means of a component that is split move
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
            model = _split(model, _shares(model, occupied, components))
        return Mixtures(model)


def _shares(model: Any, occupied: NDArray[np.float32], components: int) -> list[int]:  # noqa: ANN401
    """How many components each state is to have, of so many in all."""
    shares = [model.get_pdf(state).num_gauss for state in range(model.num_pdfs)]
    frames = occupied.tolist()
    wanting = [(-(own**_POWER) / shares[state], state) for state, own in enumerate(frames)]
    heapq.heapify(wanting)
    for _ in range(components - sum(shares)):
        while wanting and frames[wanting[0][1]] < _LEAST * (shares[wanting[0][1]] + 1):
            heapq.heappop(wanting)
        if not wanting:
            break
        state = wanting[0][1]
        shares[state] += 1
        heapq.heapreplace(wanting, (-(frames[state] ** _POWER) / shares[state], state))
    return shares


def _split(model: Any, shares: Sequence[int]) -> Any:  # noqa: ANN401
    """The same with more components: the heaviest becomes two, again and again."""
    gmm = kaldi().gmm
    more = gmm.AmDiagGmm()
    for state, share in enumerate(shares):
        pdf = model.get_pdf(state)
        weights, means, inverse = list(pdf.weights), list(pdf.means), list(pdf.inv_vars)
        while len(weights) < share:
            heaviest = int(np.argmax(weights))
            weights[heaviest] /= 2
            move = _SPREAD / np.sqrt(inverse[heaviest])
            weights.append(weights[heaviest])
            means.append(means[heaviest] - move)
            inverse.append(inverse[heaviest])
            means[heaviest] = means[heaviest] + move
        own = gmm.DiagGmm(len(weights), pdf.dim)
        own.set_weights(np.array(weights, np.float32))
        own.set_invvars_and_means(np.array(inverse, np.float32), np.array(means, np.float32))
        own.compute_gconsts()
        more.add_pdf(own)
    return more
