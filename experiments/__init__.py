"""Experiments: one small file each, with its command, cost and expected result on top."""
