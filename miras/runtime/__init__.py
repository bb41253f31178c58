"""Runtime: files, signals, terminal and figures; nothing here knows of models."""
