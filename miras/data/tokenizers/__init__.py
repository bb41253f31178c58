"""Tokenizers: from text to ids, and from ids to text as it comes."""
