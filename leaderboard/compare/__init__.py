"""What tables of runs say: paired differences, ranks, layers, and corpora heard in training."""
