"""How fast things are here: encoders, extraction, the training of heads, and so a whole run."""
