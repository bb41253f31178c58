"""Python processes that find miras imported: a server that forks one for each call.

Importing miras, jax, flax, orbax and matplotlib is 3 seconds of a process that runs for 5. The
server imports them once. tests/runtime/test_lazy.py imports miras as a user's process does.

    python fork_server.py serve SOCKET              until its standard input is closed
    python fork_server.py call SOCKET -c CODE       as `python -c CODE`
    python fork_server.py call SOCKET -m MODULE ... as `python -m MODULE ...`, also after -u

A call runs in the caller's folder, with its environment, standard streams and exit status. What
the libraries read of the environment on import is the server's. A program ends as python ends it,
with its threads and its atexit functions, but for the destruction of all modules, which takes
longer than most programs here. The modules that a program starts with `sys.executable`, such as the
workers of `miras ablate`, run in the same way.
"""

import atexit
import json
import os
import shlex
import socket
import sys
import threading
import traceback


def call(path: str, argv: list[str]) -> int:
    """Have the server run a program; returns its exit status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        wanted = {"argv": argv, "folder": os.getcwd(), "environment": dict(os.environ)}
        connection.sendall(json.dumps(wanted).encode())
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(16) or 1)


def serve(path: str) -> list[str] | None:
    """Fork a process for each connection; returns the arguments in it, and None in the server."""
    import select

    children = 0
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while server in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            with connection:
                if not _fork():
                    return _program(connection)
            while children and os.waitpid(-1, os.WNOHANG)[0]:
                children -= 1
            children += 1
    for _ in range(children):
        os.wait()
    return None


# Modules are run by the server, anything else by python.
PYTHON = """#!/bin/sh
case "$*" in
  "-m "* | "-u -m "*) exec {call} "$@" ;;
  *) exec {python} "$@" ;;
esac
"""


def write_python(path: str) -> str:
    """Write the command that programs take for python, next to the socket; returns its path."""
    script = os.path.join(os.path.dirname(path), "python")
    call = [sys.executable, "-IS", os.path.abspath(__file__), "call", path]
    with open(script, "w") as file:
        file.write(PYTHON.format(call=shlex.join(call), python=shlex.quote(sys.executable)))
    os.chmod(script, 0o755)
    return script


def _program(connection: socket.socket) -> list[str]:
    """Become the caller's program; a parent of it waits for it and reports its exit status."""
    if child := _fork():
        _, status = os.waitpid(child, 0)
        connection.sendall(str(abs(os.waitstatus_to_exitcode(status))).encode())
        os._exit(0)
    _, streams, *_ = socket.recv_fds(connection, 1, 3)
    wanted = json.loads(connection.makefile().read())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    return wanted["argv"]


def _fork() -> int:
    """A fork without jax's warning: the server has one thread."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return os.fork()


def _import_libraries() -> None:
    import flax.nnx  # noqa: F401
    import grain  # noqa: F401
    import jax  # noqa: F401
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import optax  # noqa: F401
    import tensorflow_datasets.public_api  # noqa: F401
    from orbax.checkpoint import v1  # noqa: F401

    import miras.analysis.ablate
    import miras.cli.main
    import miras.data.text.local_text
    import miras.models
    import miras.presets
    import miras.testing
    import miras.train
    import miras.train.loggers.tensorboard  # noqa: F401


def _main() -> None:
    mode, path, *argv = sys.argv[1:]
    if mode == "call":
        sys.exit(call(path, argv))
    _import_libraries()
    python = write_python(path)
    wanted = serve(path)
    if wanted is None:
        return
    sys.executable = python
    code = _status(wanted)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _status(argv: list[str]) -> int:
    """Run a program; returns its exit status."""
    import runpy

    if argv[0] == "-u":
        sys.stdout.reconfigure(write_through=True)
        argv = argv[1:]
    flag, program, *rest = argv
    sys.path[0] = ""
    try:
        if flag == "-m":
            sys.argv = [program, *rest]
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *rest]
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _main()
