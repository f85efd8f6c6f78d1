"""Trackers: where the course of training and the scores can be watched, by libraries of others."""
