"""What result files say: read, then compared, then shown. Nothing here trains or encodes.

Imports go one way, read → compare → show, and outside only to `benchmark`.
"""
