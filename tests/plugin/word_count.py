"""A task in a file of its own, nothing installed: `superb check word_count.py:WordCount`."""

import torch
from torch import nn

from superb import DownstreamCard, Metric, Record


class Counter(nn.Module):
    """The rate of speech at every frame, in words per second; its integral is the count."""

    def __init__(self, dim, hop_s):
        super().__init__()
        self.rate, self.hop_s = nn.Linear(dim, 1), hop_s

    def forward(self, frames, lengths):
        own = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
        rates = nn.functional.softplus(self.rate(frames)) * own[..., None]  # none in padding
        return rates.sum(1) * self.hop_s, lengths  # [utterance, 1]


class WordCount:
    """How many words are said."""

    metric = Metric("mistake", "lower", statistic="mean", unit="words")
    card = DownstreamCard(
        "word-count", "Words per utterance", 1, (metric,), features="frames", needs=("text",)
    )
    training = {"updates": 300, "learning_rates": [0.01, 0.03, 0.1, 0.3, 1.0], "halving": []}

    def vocabulary(self, train):
        return ("words",)  # one output

    def head(self, dim, hop_s, outputs, settings, generator):
        return Counter(dim, hop_s)

    def loss(self, logits, lengths, utterances, vocabulary):
        counts = [float(len(u.text.split())) for u in utterances]
        return nn.functional.smooth_l1_loss(logits[:, 0], logits.new_tensor(counts))

    def answer(self, logits, lengths, utterances, vocabulary):
        return logits[:, 0].tolist()

    def records(self, utterances, answers):
        counts = [len(u.text.split()) for u in utterances]
        return [
            Record(u.id, (u.speaker,), str(n), f"{x:.1f}", {"mistake": (abs(x - n),)})
            for u, n, x in zip(utterances, counts, answers, strict=True)
        ]
