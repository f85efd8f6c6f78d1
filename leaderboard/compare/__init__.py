"""Statistics of a board: numbers and verdicts, no text for readers.

`ranks` are over all tasks, `difference` pairs two results, `encoders` and `layers` do so for whole
folders, `reproduction` sets ours beside published figures, `contamination` says which corpora were
heard in training.
"""
