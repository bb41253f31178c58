"""Inspect: measures a model's memories at each token of a text, and writes a page of the results.

`measures` measures one memory at one token, `trace` reads a text, `descriptions` explains the
measures, `token_text` makes tokens visible, and `page` writes HTML. Nothing here updates a memory.
"""
