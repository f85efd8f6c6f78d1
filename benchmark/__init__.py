"""The engine. It is handed objects and names no encoder, task or corpus; see its rooms."""
