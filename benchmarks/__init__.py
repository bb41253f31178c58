"""Benchmarks: ours beside others', on the machine at hand."""
