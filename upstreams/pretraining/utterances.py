"""Utterance-wise contrast (UniSpeech-SAT, arXiv 2110.05752): which frames are of one utterance.

What is the same in all frames of an utterance and differs between utterances is who speaks, and how
it was recorded. A loss on content alone sets that aside; this one, at a layer in the middle, asks
for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Told:
    """How well utterances were told apart.

    Attributes:
        loss: mean over anchors and their positives; a scalar.
        accuracy: share of anchors to which some other frame of their own utterance is more alike
            than all frames of others; detached.
    """

    loss: Tensor
    accuracy: Tensor


def utterance_contrast(states_btp: Tensor, anchors_n: Tensor, temperature: float) -> Told:
    """For each anchor a and other frame p of its utterance, by cosine over the temperature::

        − log  e^(a · p) / (e^(a · p) + Σ e^(a · n))        n: all frames of all other utterances

    Unlike in the paper (section 2.2), positives and negatives are frames as they are and not
    quantised, all of them and not a sample: nothing is drawn.

    Args:
        states_btp: ``[utterance, frame, dim]``, nothing padded.
        anchors_n: indices into all frames of the batch in a row.
        temperature: divides the cosines.

    Returns:
        Loss and accuracy, in float32. Of a single utterance, or of single frames, they are 0.
    """
    utterances, frames, _ = states_btp.shape
    with torch.autocast(states_btp.device.type, enabled=False):
        all_mp = F.normalize(states_btp.float(), dim=2).flatten(0, 1)
        likeness_nm = all_mp[anchors_n] @ all_mp.T / temperature
        if utterances == 1 or frames == 1:
            zero = 0 * likeness_nm.sum()
            return Told(zero, zero.detach())
        # What is left out is so unlike that it counts for nothing, and yet no infinity.
        nothing = -1e30
        own_n = (anchors_n // frames)[:, None]
        same_nm = own_n == torch.arange(len(all_mp), device=all_mp.device)[None] // frames
        other_n1 = likeness_nm.masked_fill(same_nm, nothing).logsumexp(1, keepdim=True)
        # [anchor, frame of its utterance], and which of these the anchor itself is
        positive_nt = likeness_nm.masked_select(same_nm).view(len(anchors_n), frames)
        self_nt = torch.arange(frames, device=all_mp.device)[None] == anchors_n[:, None] % frames
        losses_nt = F.softplus(other_n1 - positive_nt).masked_fill(self_nt, 0)
        loss = losses_nt.sum() / (len(anchors_n) * (frames - 1))
        with torch.no_grad():
            best_n = positive_nt.masked_fill(self_nt, nothing).amax(1)
            worst_n = likeness_nm.masked_fill(same_nm, nothing).amax(1)
            accuracy = (best_n > worst_n).float().mean()
    return Told(loss, accuracy)
