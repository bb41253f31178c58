"""Backends: what runs the chunk step over tokens."""
