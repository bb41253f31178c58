"""The XLA backend: tokens laid out as tiles, each one call of the chunk step."""
