"""The manifest of a checkpoint: the data position and the digests of the state, with a checksum.

Process 0 writes one file to the checkpoint's `data` folder, which all processes read:

    {"position": ..., "leaves": {path: digest}, "sha256": of the other two}

Its name has the number of processes that saved, and any number of them can restore. Checkpoints of
miras 0.1 hold the position alone and are read without a check.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable
from typing import Any

from miras.runtime import processes


class DamagedError(Exception):
    """The content of a checkpoint differs from what was written."""


class Manifest:
    """An item of a checkpoint that Orbax saves and loads (`StatefulCheckpointable`).

    Attributes:
        position: of the data iterator, as plain JSON values; None if none was saved.
        leaves: digests by path, see `digest.digest`; None if none were saved.
    """

    def __init__(self, position: Any = None, leaves: dict[str, str] | None = None):
        self.position, self.leaves = position, leaves

    async def save(self, directory: Any) -> Awaitable[None]:
        """Write the file once Orbax has created the folder."""
        body = {"position": self.position, "leaves": self.leaves}
        text = json.dumps(body | {"sha256": _sha256(body)}, indent=1)

        async def write() -> None:
            folder = await directory.await_creation()
            if processes.first():
                await asyncio.to_thread((folder / _name()).write_text, text)

        return write()

    async def load(self, directory: Any) -> Awaitable[None]:
        """Read the file.

        Raises:
            DamagedError: its content does not match its checksum.
        """
        return asyncio.to_thread(self._read, directory)

    def _read(self, folder: Any) -> None:
        path = min(folder.glob("process_0-*.json"), default=folder / _name())
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise DamagedError("the data position is not a mapping")
        if "identity" in found:
            self.position, self.leaves = found, None
            return
        body = {name: found.get(name) for name in ("position", "leaves")}
        if found.get("sha256") != _sha256(body):
            raise DamagedError("the data position differs from its checksum")
        self.position, self.leaves = body["position"], body["leaves"]


def _name() -> str:
    return f"process_0-of-{processes.count()}.json"


def _sha256(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
