"""Inspect: what a model's memories do with a text, token by token, as a page.

`measures` says what one memory does with one token, `trace` reads a text, `meaning` puts the
measures into words, `spelling` tokens into text, `page` makes HTML of all that, and `command` is
`miras inspect`. Nothing here updates a memory.
"""
