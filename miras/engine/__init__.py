"""The engine: one chunk step, as pure functions of one head."""
