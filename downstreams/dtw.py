"""Subsequence dynamic time warping: how well a query fits anywhere into a document.

The search of SUPERB's query by example (Yang et al. 2021): distance exp(cosine distance) - 1, each
query frame's distances to a document scaled to run from 0 to 1, the step pattern ``asymmetric``
(each query frame once, while the document waits or goes on by one frame or two: Sakoe & Chiba 1978)
with open begin and end, and the cost of the best path over the length of the query (Tormene et al.
2009). Checked against dtw-python 1.9.0.

``python -m downstreams.dtw`` times it beside the plain loop over frames.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

# Bytes that a block of documents may take, and again their distances to the queries in hand. A
# single document that is larger is a block of its own.
BUDGET: Final = 1 << 23
# Queries of fewer frames are not searched for.
SHORTEST: Final = 5
# Distances that differ by less are equal: single precision cannot tell them apart.
RESOLUTION: Final = 1e-5


def scores(
    queries: Sequence[Tensor],
    documents: Sequence[Tensor],
    prepare: Callable[[Tensor], Tensor] = lambda frames: frames,
    *,
    budget: int = BUDGET,
) -> Tensor:
    """How well each query fits into each document, the best part of it.

    Any query has a path through any document, also through one that is shorter, which then waits.
    A frame of zeros is at distance 1 from all others.

    Args:
        queries: ``[frame, dim]`` each, at least one frame.
        documents: likewise.
        prepare: what is done to the frames of each when its turn comes.
        budget: in bytes; see `BUDGET`.

    Returns:
        Minus the mean cost of a query frame, 0 or less, ``[query, document]`` on the processor; 0
        for queries of fewer than `SHORTEST` frames.
    """
    found = torch.zeros(len(queries), len(documents))
    order = sorted(
        (place for place, query in enumerate(queries) if len(query) >= SHORTEST),
        key=lambda place: len(queries[place]),
    )
    if not order:
        return found

    def unit(frames: Tensor) -> Tensor:
        return normalize(prepare(frames).float(), dim=-1)

    units = [unit(queries[place]) for place in order]
    longest, dim = units[-1].shape
    for block in _blocks(documents, budget // (4 * max(longest, dim))):
        padded = _repeated([unit(documents[place]) for place in block])
        start = 0
        while start < len(units):
            stop = start + 1
            size = padded.shape[0] * padded.shape[1] * 4
            while stop < len(units) and (stop + 1 - start) * len(units[stop]) * size <= budget:
                stop += 1
            costs = _costs(units[start:stop], padded).cpu()
            found[torch.tensor(order[start:stop])[:, None], torch.tensor(block)] = -costs
            start = stop
    return found


def _blocks(documents: Sequence[Tensor], frames: int) -> Iterator[list[int]]:
    """Places of documents of like length, with at most so many frames when padded."""
    block: list[int] = []
    for place in sorted(range(len(documents)), key=lambda place: len(documents[place])):
        if block and (len(block) + 1) * len(documents[place]) > frames:
            yield block
            block = []
        block.append(place)
    if block:
        yield block


def _repeated(documents: Sequence[Tensor]) -> Tensor:
    """Documents ``[document, frame, dim]``, the last frame of the shorter ones repeated.

    A path through repeated frames costs what it costs to wait on the last, and neither the least
    nor the greatest distance changes: nothing has to be masked.
    """
    longest = max(map(len, documents))
    return torch.stack(
        [torch.cat([own, own[-1:].expand(longest - len(own), -1)]) for own in documents]
    )


def _costs(queries: Sequence[Tensor], documents: Tensor) -> Tensor:
    """Mean cost of a query frame ``[query, document]``.

    Args:
        queries: unit vectors ``[frame, dim]``, by length.
        documents: unit vectors ``[document, frame, dim]``.
    """
    count, frames, dim = documents.shape
    rows = pad_sequence(list(queries))  # [frame, query, dim]
    cosine = rows.flatten(0, 1) @ documents.view(-1, dim).T
    # the 1 that is taken from exp(distance) is the same for all and goes away in the scaling
    distance = cosine.neg_().add_(1).exp_().view(len(rows), len(queries), count, frames)
    # each by itself: both at once take ten times as long
    least, most = distance.amin(dim=-1, keepdim=True), distance.amax(dim=-1, keepdim=True)
    distance.sub_(least).div_((most - least).clamp_(min=RESOLUTION))
    # what a path costs that ends at each document frame; before the first there are two at infinity
    path = distance.new_full((len(queries), count, frames + 2), torch.inf)
    path[..., 2:] = distance[0]
    best = torch.empty_like(distance[0])
    found, done = distance.new_empty(len(queries), count), 0
    for row in range(1, len(rows) + 1):
        while done < len(queries) and len(queries[done]) == row:
            found[done] = path[done, :, 2:].amin(dim=-1) / row
            done += 1
        if row == len(rows):
            break
        own, into = path[done:], best[done:]
        torch.minimum(own[..., 2:], own[..., 1:-1], out=into)
        torch.minimum(into, own[..., :-2], out=into)
        torch.add(into, distance[row, done:], out=own[..., 2:])
    return found


def loop(query: Tensor, document: Tensor) -> float:
    """The score of one query in one document, frame by frame: what `scores` is held against."""
    a, b = (normalize(frames.double(), dim=-1) for frames in (query, document))
    distance = torch.exp(1 - a @ b.T) - 1
    least, most = distance.aminmax(dim=1, keepdim=True)
    rows = ((distance - least) / (most - least).clamp(min=1e-9)).tolist()
    path = [0.0] * len(document)
    for row in rows:
        path = [cost + min(path[max(j - 2, 0) : j + 1]) for j, cost in enumerate(row)]
    return -min(path) / len(query)


def main(queries: int = 100, documents: int = 200, dim: int = 192, sample: int = 40) -> None:
    """Print what a search takes, and what the plain loop would."""
    draw = torch.Generator().manual_seed(0)

    def drawn(count: int, low: int, high: int) -> list[Tensor]:
        lengths = torch.randint(low, high + 1, (count,), generator=draw).tolist()
        return [torch.randn(length, dim, generator=draw) for length in lengths]

    asked, searched = drawn(queries, 30, 80), drawn(documents, 200, 600)
    pairs = torch.randint(queries * documents, (sample,), generator=draw).tolist()
    begin = time.perf_counter()
    plain = [loop(asked[pair // documents], searched[pair % documents]) for pair in pairs]
    middle = time.perf_counter()
    found = scores(asked, searched).flatten()
    took = time.perf_counter() - middle
    would = (middle - begin) / sample * queries * documents
    worst = max(abs(found[pair].item() - own) for pair, own in zip(pairs, plain, strict=True))
    print(
        f"{queries} queries of 30 to 80 frames in {documents} documents of 200 to 600, dim {dim}, "
        f"{torch.get_num_threads()} threads: {took:.2f} s. A plain loop, by {sample} of the "
        f"{queries * documents} pairs: {would:.0f} s, {would / took:.0f} times as long. The scores "
        f"of these pairs differ by {worst:.0e} at most."
    )


if __name__ == "__main__":
    main()
