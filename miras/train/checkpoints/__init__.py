"""Checkpoints: the training state and the data position on disk, with their digests."""
