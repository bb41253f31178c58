"""Loggers: where the measurements of a run are written."""
