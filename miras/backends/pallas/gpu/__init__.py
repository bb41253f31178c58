"""GPU: the tile step as a Triton kernel."""
