"""From waveforms to stored layers: one frozen forward per utterance, kept under its content.

`features.extract` is the way in: audio is found and hashed (`recordings`), read (`audio`), cut
(`takes`), encoded alone, and stored (`store`) under all that it depends on (`fingerprint`).
"""
