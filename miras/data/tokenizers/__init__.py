"""Tokenizers, and a decoder for ids that arrive one at a time."""
