"""Files, signals, terminal output, figures and lazy imports, independent of models."""
