"""What result files say: read, compared and shown. Nothing here trains or encodes."""
