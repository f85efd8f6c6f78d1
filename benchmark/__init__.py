"""The engine: it knows no model, no task and no data set by name."""
