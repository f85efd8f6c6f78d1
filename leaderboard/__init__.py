"""Tables from result files; nothing here runs a model."""
