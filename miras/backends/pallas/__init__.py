"""Kernels: the chunk step traced into Pallas. No mathematics here, only how it is run."""
