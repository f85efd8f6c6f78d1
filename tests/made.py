"""Made-up speech and the quick protocol: tones, whose pitch says who speaks and what is said."""

from __future__ import annotations

import numpy as np

RATE = 16_000
SPEAKERS = ("ada", "ben", "cy", "dora")
WORDS = ("yes", "no", "stop")
PITCHES = {"yes": 500.0, "no": 1500.0, "stop": 2500.0}
# fold → speakers of test and of valid; the others are train
FOLDS = {"a": ("ada", "ben"), "b": ("ben", "cy"), "c": ("cy", "dora")}

_POOLED = """
updates = 60
batch_utterances = 8
accumulate = 1
sampling = "shuffle"
crop_s = 0.0
crops = 1
gain_db = 0.0
first_seed = 0
learning_rates = [1e-3, 1e-2, 1e-1]
schedule = "constant"
warmup = 0
clip_norm = 1.0
evaluate_every = 20
valid_sampling = "all"
select_by = "score-loss"
patience = 0
head_precision = "float32"
standardise = true
halving = [{ update = 20, keep = 2, by = "score" }]
head = { projection = 16 }
"""
_ASR = """
updates = 40
batch_utterances = 8
accumulate = 1
sampling = "shuffle"
crop_s = 0.0
crops = 1
gain_db = 0.0
first_seed = 0
learning_rates = [3e-3, 3e-2]
schedule = "linear"
warmup = 5
clip_norm = 1.0
evaluate_every = 20
valid_sampling = "all"
select_by = "score-loss"
patience = 0
head_precision = "float32"
standardise = false
head = { frame_s = 0.02, projection = 12, hidden = 8, layers = 2, dropout = 0.2 }
[asr.spec_augment]
time_warp = 2
time_masks = 1
time_width = 4
time_share = 0.2
feature_masks = 1
feature_width = 4
feature_share = 0.2
"""
QUICK = f'name = "quick"\nversion = 1\n[asr]{_ASR}\n[sid]{_POOLED}\n[ks]{_POOLED}'


def tone(word: str, speaker: str, take: int, seconds: float = 0.3) -> np.ndarray:
    """A word is a pitch, a speaker an overtone, a take some noise."""
    random = np.random.default_rng([take, *word.encode(), *speaker.encode()])
    time = np.arange(int((seconds + 0.02 * take) * RATE)) / RATE
    overtone = 3500 + 1000 * SPEAKERS.index(speaker)
    wave = 0.3 * np.sin(2 * np.pi * PITCHES[word] * time)
    wave += 0.2 * np.sin(2 * np.pi * overtone * time)
    return (wave + 0.02 * random.standard_normal(time.size)).astype(np.float32)
