"""Association: one association that a token makes."""

from typing import NamedTuple


class AssociationTerms(NamedTuple):
    """The error of what the memory answers to `read`, as to `value`, written along `write`.

    LaTeX of each, "" for a key or value of zero, and of the rate, "" for 1.
    """

    read: str
    write: str
    value: str
    rate: str
