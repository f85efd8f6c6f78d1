"""Faults of what is scored, of result files and of their tables."""

from __future__ import annotations
