"""The seal of a checkpoint: the place in the data and the state's digest, under one checksum.

It is one file a process in the checkpoint's `data` folder:

    {"position": ..., "leaves": {path: digest}, "sha256": of the two others}

Checkpoints of miras 0.1 hold the bare position there, and are read without a check.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable
from typing import Any

import jax


class DamagedError(Exception):
    """What was read is not what was written."""


class Seal:
    """An item of a checkpoint, as Orbax saves and loads one (`StatefulCheckpointable`).

    Attributes:
        position: of the data, plain JSON values; None where there is none.
        leaves: digests by path, as `digest.digest` gives them; None where they were never saved.
    """

    def __init__(self, position: Any = None, leaves: dict[str, str] | None = None):
        self.position, self.leaves = position, leaves

    async def save(self, directory: Any) -> Awaitable[None]:
        """Write the file once Orbax has made the folder."""
        body = {"position": self.position, "leaves": self.leaves}
        text = json.dumps(body | {"sha256": _sha256(body)}, indent=1)

        async def write() -> None:
            folder = await directory.await_creation()
            await asyncio.to_thread((folder / _name()).write_text, text)

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        """Read the file; Orbax raises what `_read` does."""
        return asyncio.to_thread(self._read, directory)

    def _read(self, folder: Any) -> None:
        own = folder / _name()
        if not own.exists():  # another number of processes saved it
            own = min(folder.glob("process_*.json"), default=own)
        found = json.loads(own.read_text())
        if not isinstance(found, dict):
            raise DamagedError("the place in the data is no mapping")
        if "identity" in found:
            self.position, self.leaves = found, None
            return
        body = {name: found.get(name) for name in ("position", "leaves")}
        if found.get("sha256") != _sha256(body):
            raise DamagedError("the place in the data is not what was written")
        self.position, self.leaves = body["position"], body["leaves"]


def _name() -> str:
    return f"process_{jax.process_index()}-of-{jax.process_count()}.json"


def _sha256(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
