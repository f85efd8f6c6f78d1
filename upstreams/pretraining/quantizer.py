"""The product quantiser of wav2vec 2.0 (Baevski et al., arXiv 2006.11477, section 2).

A latent chooses one entry from each of G codebooks, and the entries side by side are its quantised
form. In training the choice is sampled with Gumbel noise; its gradient is that of the softmax which
was sampled from ("straight-through", arXiv 1611.01144).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn


@dataclass(frozen=True)
class Quantized:
    """Latents and what they chose.

    Attributes:
        values_nd: the chosen entries side by side, float32.
        chosen_ng: the entry of each codebook that was taken.
        likeliest_ng: the entry that would have been taken without noise.
        diversity: the diversity loss, scalar: 0 where all entries are used alike, below 1 always.
        soft_perplexity: how many entries of a codebook are in use by their mean probability.
        hard_perplexity: the same by the share of latents that they are likeliest for. Both are
            means over codebooks, scalar and detached, from 1 to V.
    """

    values_nd: Tensor
    chosen_ng: Tensor
    likeliest_ng: Tensor
    diversity: Tensor
    soft_perplexity: Tensor
    hard_perplexity: Tensor

    def rows(self, index_m: Tensor) -> Quantized:
        """Some of the latents; what is said of the use of codes stays that of all of them."""
        return replace(
            self,
            values_nd=self.values_nd.index_select(0, index_m),
            chosen_ng=self.chosen_ng.index_select(0, index_m),
            likeliest_ng=self.likeliest_ng.index_select(0, index_m),
        )


class ProductQuantizer(nn.Module):
    """G codebooks of V entries, chosen from by one linear map of the latent.

    Its weights are as torch initialises them: follow with `reset_parameters`.

    Args:
        dim: width of a latent.
        groups: codebooks, G.
        codes: entries of each, V.
        output_dim: width of a quantised latent, a multiple of the groups.
    """

    def __init__(self, dim: int, groups: int, codes: int, output_dim: int) -> None:
        super().__init__()
        self.logits = nn.Linear(dim, groups * codes)
        self.codebooks = nn.Parameter(torch.empty(groups, codes, output_dim // groups))

    def reset_parameters(self, generator: Generator) -> None:
        """Draw all weights as fairseq does: N(0, 1) for the logits, uniform in [0, 1) for entries.

        Logits that are far apart let the choice depend on the latent from the first step on.
        """
        nn.init.normal_(self.logits.weight, generator=generator)
        nn.init.zeros_(self.logits.bias)
        nn.init.uniform_(self.codebooks, generator=generator)

    def forward(self, z_nc: Tensor, temperature: float, generator: Generator) -> Quantized:
        """Quantise latents; in evaluation without noise, and without a gradient to the choice.

        Args:
            z_nc: ``[latent, channel]``.
            temperature: of the Gumbel softmax.
            generator: of its noise, on the CPU.
        """
        groups, codes, _ = self.codebooks.shape
        logits_ngv = self.logits(z_nc).float().unflatten(1, (groups, codes))
        likeliest_ng = logits_ngv.argmax(2)
        if self.training:
            noise_ngv = -torch.empty(logits_ngv.shape).exponential_(generator=generator).log()
            soft_ngv = ((logits_ngv + noise_ngv.to(z_nc.device)) / temperature).softmax(2)
            chosen_ng = soft_ngv.argmax(2)
            # The bracket is exactly zero, so that latents of one choice have exactly one value.
            choice_ngv = F.one_hot(chosen_ng, codes) + (soft_ngv - soft_ngv.detach())
        else:
            chosen_ng = likeliest_ng
            choice_ngv = F.one_hot(chosen_ng, codes).float()
        with torch.autocast(z_nc.device.type, enabled=False):
            values_ngd = torch.einsum("ngv,gvd->ngd", choice_ngv, self.codebooks)
        soft_g = perplexity(logits_ngv.softmax(2).mean(0))
        hard_g = perplexity(F.one_hot(likeliest_ng, codes).float().mean(0))
        return Quantized(
            values_nd=values_ngd.flatten(1),
            chosen_ng=chosen_ng,
            likeliest_ng=likeliest_ng,
            # (G·V - Σ exp H) / (G·V), as fairseq has equation 4 of the paper.
            diversity=1 - soft_g.mean() / codes,
            soft_perplexity=soft_g.detach().mean(),
            hard_perplexity=hard_g.mean(),
        )


def perplexity(shares_gv: Tensor) -> Tensor:
    """exp H of each distribution: how many entries it would have if it were uniform.

    Args:
        shares_gv: ``[codebook, entry]``, each row adding up to one.

    Returns:
        ``[codebook]``, from 1 to V.
    """
    # A share can underflow to 0, where the gradient of its logarithm would be infinite.
    return torch.exp(-(shares_gv * shares_gv.clamp(min=1e-7).log()).sum(1))


def annealed(first: float, last: float, progress: float) -> float:
    """A temperature that falls by the same factor at every step, from the first to the last.

    Args:
        first: at progress 0.
        last: at progress 1.
        progress: share of the run that is over.
    """
    return float(first * (last / first) ** progress)
