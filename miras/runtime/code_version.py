"""`code_version`: what must be equal where several machines compute one result."""

import functools
import hashlib
import importlib.metadata
import pathlib

import miras


@functools.cache
def code_version() -> str:
    """The versions of miras and jax, and a hash of the source of miras. Does not import jax."""
    root = pathlib.Path(miras.__file__).parent
    content = b"".join(path.read_bytes() for path in sorted(root.rglob("*.py")))
    source = hashlib.sha256(content).hexdigest()[:12]
    jax = importlib.metadata.version("jax")
    return f"miras {miras.__version__} (source {source}), jax {jax}"
