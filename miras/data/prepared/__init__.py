"""Prepared sets: documents packed into rows of tokens once, and read at random access.

`layout` has the files of a set, `record` the bytes of a row; `prepare` writes a set, `verify`
checks it, and `rows` reads it.
"""
