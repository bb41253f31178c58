"""Tests, in folders that mirror the package's, and two that look at the whole of it.

conformance: rules and presets against oracles in NumPy that are written from the papers.
contract: what must hold for every legal rule, over a sample of the whole design space.

`rules` holds rules and random inputs, `selection` chooses what `make quick`, `make test` and
`make exhaustive` run, `tolerances` derives the tolerance of a comparison.
"""
