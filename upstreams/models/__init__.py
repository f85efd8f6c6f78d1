"""Architectures, one file a family: configuration and modules that know their paper, no loader."""
