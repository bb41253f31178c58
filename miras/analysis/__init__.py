"""Analysis: what a model costs, computes and remembers, and comparisons between models."""
