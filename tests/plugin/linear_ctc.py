"""A head of speech recognition in a file of its own: `superb check linear_ctc.py:LinearCtc`."""

import torch
from torch import nn


class Linear(nn.Module):
    """Logits of each frame, by one linear layer."""

    def __init__(self, dim, outputs):
        super().__init__()
        self.classify = nn.Linear(dim, outputs)

    def forward(self, frames, lengths):
        return self.classify(frames), lengths


class LinearCtc:
    """CTC with one linear layer and nothing else; symbol 0 is its blank."""

    name = "linear-ctc"
    title = "linear; character CTC, greedy"
    settings = {}

    def module(self, dim, hop_s, outputs, settings, generator):
        return Linear(dim, outputs)

    def loss(self, heard, lengths, targets):
        return nn.functional.ctc_loss(
            heard.log_softmax(-1).transpose(0, 1),
            torch.tensor([symbol for target in targets for symbol in target]),
            lengths.cpu(),
            torch.tensor([len(target) for target in targets]),
            zero_infinity=True,
        )

    def transcribe(self, heard, lengths):
        paths = zip(heard.argmax(-1), lengths.tolist(), strict=True)
        steps = [path[:length].unique_consecutive().tolist() for path, length in paths]
        return [[symbol for symbol in own if symbol] for own in steps]

    def notes(self, targets, lengths, hop_s, settings):
        return []
