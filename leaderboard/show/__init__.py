"""Tables, plots, exports and the report: what a person looks at."""
