"""TPU: the tile step as a Mosaic kernel."""
