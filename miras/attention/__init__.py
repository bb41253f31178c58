"""Attention: the kv memory, softmax attention over tokens that are kept."""
