"""The files between a command and a kernel's body, recorded while the command runs.

    python -m benchmarks.call_path

runs `miras train yaad bias=l2`, one step of a small model, with TPU kernels in jax's interpreter.
It prints two call chains, which docs/architecture.md explains: to the memory's equation, where the
step is traced, and to the kernel's body. A line is a file and its functions on the chain. Then it
counts, by package, all files of which a function ran before the kernel's body.
"""

import collections
import contextlib
import itertools
import os
import pathlib
import sys
import tempfile
from types import FrameType
from typing import Any

import miras

ROOT = pathlib.Path(miras.__file__).parent
COMMAND = "train yaad bias=l2 backend=pallas steps=1"  # the backend that `auto` takes on a TPU
# jax's interpreter of TPU kernels runs inside no `jax.checkpoint`.
SMALL = "width=16 layers=1 heads=1 chunk=16 sequence=32 batch=1 eval_batches=1 remat=false"
Chain = list[tuple[str, str]]  # files and functions, the caller first


class Recorder:
    """What `sys.setprofile` calls: notes files, and the chains to the two ends."""

    def __init__(self):
        self.files: dict[str, None] = {}
        self.chains: dict[str, Chain] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note the call of a function of miras."""
        del argument
        if len(self.chains) == 2:
            sys.setprofile(None)
        elif event == "call" and (file := _file(frame)) is not None:
            self._note(frame, file)

    def _note(self, frame: FrameType, file: str) -> None:
        self.files.setdefault(file)
        if file.startswith("memory/") and frame.f_code.co_name == "apply":
            self.chains.setdefault("equation", _chain(frame))
        if "kernel" not in self.chains and _in_kernel(frame):
            self.chains["kernel"] = _chain(frame)


def _file(frame: FrameType) -> str | None:
    """The frame's file relative to the package; None outside of it and for modules' own bodies."""
    path = frame.f_code.co_filename
    if not path.startswith(str(ROOT)) or frame.f_code.co_name == "<module>":
        return None
    return str(pathlib.Path(path).relative_to(ROOT))


def _stack(frame: FrameType | None) -> list[FrameType]:
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found[::-1]


def _in_kernel(frame: FrameType) -> bool:
    """Whether Pallas traces a kernel's body here."""
    return any(
        caller.f_code.co_name == "_trace_kernel_to_jaxpr" and "pallas" in caller.f_code.co_filename
        for caller in _stack(frame)
    )


def _chain(frame: FrameType) -> Chain:
    named = [(_file(caller), caller.f_code.co_name) for caller in _stack(frame)]
    return [(file, name) for file, name in named if file is not None]


def record() -> Recorder:
    """Run the command and record it."""
    from miras.backends.pallas.interpreter import interpreted
    from miras.cli.main import main

    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder, interpreted():
        command = [*COMMAND.split(), *SMALL.split(), "--out", f"{folder}/run"]
        with contextlib.redirect_stdout(sys.stderr):
            sys.setprofile(recorder)
            try:
                main(command)
            finally:
                sys.setprofile(None)
    return recorder


def package(file: str) -> str:
    """The package of a file."""
    return file.partition("/")[0]


def text(recorder: Recorder) -> str:
    """The chains and the counts."""
    lines, chains = [], recorder.chains
    for end in ("equation", "kernel"):
        runs: list[tuple[str, list[str]]] = []
        for file, name in chains[end]:
            if not runs or runs[-1][0] != file:
                runs.append((file, []))
            runs[-1][1].append(name)
        files = list(dict.fromkeys(file for file, _ in runs))
        packages = [package(file) for file, _ in runs]
        crossings = [pair for pair in itertools.pairwise(packages) if pair[0] != pair[1]]
        lines += [f"to the {end}: {len(files)} files, {len(crossings)} crossings of packages"]
        lines += [f"  {file}: {', '.join(dict.fromkeys(names))}" for file, names in runs]
        lines += ["  " + " ".join(" -> ".join(pair) + ";" for pair in crossings), ""]
    both = {file for chain in chains.values() for file, _ in chain}
    lines += [f"both chains: {len(both)} files", f"all: {len(recorder.files)} files that ran"]
    by_package = collections.Counter(package(file) for file in recorder.files)
    lines += [f"  {name}: {count}" for name, count in sorted(by_package.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    print(text(record()))
