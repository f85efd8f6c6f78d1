"""Hidden Markov models: what the classical recognisers, ``hmm`` and ``gmm-hmm``, are made of.

A word is a sequence of units (`units`), a unit one of states (`tying`), a state a mixture of
Gaussians (`mixtures`) or an output of a network; words follow each other by an n-gram (`ngram`).
All of it becomes one transducer from states to words (`graph`), in which Kaldi's decoder finds the
best path: of a known transcript, in training (`training`), or of any.
"""
