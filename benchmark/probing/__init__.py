"""From stored layers to trained heads: layer mixes and light heads, side by side, chosen on valid.

`fit.fit` is the way in. A probe is a layer mix (`layers`) and a head with one learning rate and one
seed; probes share batches (`batching`, `augment`) and nothing else.
"""
