"""What every test shares: one CPU device, compiled programs, and double precision on request."""

import gc
import itertools
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Plugins that tests train with are not recorded as the user's own.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="miras-tests-")
# Compiling is most of the time of most tests; this halves it. What is computed stays the same.
# Only where the flags are known: XLA ends a process that is given others.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", "")]
    + ["--xla_cpu_parallel_codegen_split_count=1"]
    * version("jaxlib").startswith(("0.10.", "0.11."))
    + ["--xla_cpu_use_fusion_emitters=false"] * version("jaxlib").startswith("0.10.")
)

import jax
import numpy as np
import pytest

from tests.selection import QUICK, count_quick, leave_out, mark_exhaustive, mark_quick

jax.config.update("jax_disable_most_optimizations", True)
# Nobody reads which lines of Python an operation came from; names of scopes stay.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
jax.config.update("jax_traceback_in_locations_limit", 0)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by -m
def pytest_collection_modifyitems(config, items):
    """Choose what `make quick`, `make test` and a bare `pytest` run."""
    mark_exhaustive(items)
    mark_quick(items)
    config.stash[QUICK] = count_quick(items)
    leave_out(config, items)


def pytest_collection_finish():
    """Tracing makes millions of small objects; the collector need not walk them so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
    """Compile a program once a session, in this process and in those that tests start.

    Each xdist worker has a cache of its own, since jax writes entries in place.
    """
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 1.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": os.environ.get("JAX_PLATFORMS") == "cpu",
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)


@pytest.fixture(scope="session")
def python(tmp_path_factory, compiled_once):
    """A command that runs code as python does, in processes that find the libraries imported."""
    folder = tmp_path_factory.mktemp("server")
    server, path = Path(__file__).parent / "fork_server.py", folder / "socket"
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "OPENBLAS_NUM_THREADS": "1",  # a process with threads cannot be forked safely
    }
    argv = [sys.executable, str(server), "serve", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=environment) as process:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield [sys.executable, "-IS", str(server), "call", str(path)]


@pytest.fixture
def optimised():
    """Compile with all of XLA's optimisations, as users do: some of them change what is rounded."""
    before = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "True"
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """Prepared text in a folder of the module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIRAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def sea(tmp_path_factory):
    """A folder of 30 short texts."""
    folder, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for n in range(30):
        words = rng.choice(["see", "the", "old", "sea", "again"], 20 + 5 * n)
        (folder / f"{n:02}.txt").write_text(" ".join(words))
    return folder


@pytest.fixture
def float64():
    """Run a test in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def everywhere():
    """Double precision also in the threads in which an interpreter runs a kernel."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session")
def libtpu():
    """Let jax find the compiler of TPUs, which `make test` installs beside the environment."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("libtpu is for Linux on x86_64")
    library = Path(sys.prefix) / "tpu" / "libtpu" / "libtpu.so"
    if not library.exists():
        pytest.fail(f"no {library}: `make test` installs it")
    os.environ["TPU_LIBRARY_PATH"] = str(library)


@pytest.fixture(scope="session")
def s3_endpoint():
    """The address of a local S3 server."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """The file system of a local S3 server with one empty bucket, s3://bucket."""
    s3fs = pytest.importorskip("s3fs")
    from miras.runtime.paths import file_system

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = file_system("s3://bucket")
    if system.exists("bucket"):
        system.rm("bucket", recursive=True)
    system.mkdir("bucket")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def refused(capsys):
    """Runs a command that must end with code 2 and one sentence, which it gives back."""

    def check(*argv) -> str:
        from miras.cli.main import main

        assert main([str(arg) for arg in argv]) == 2
        told = capsys.readouterr()
        assert told.err.count("\n") == 1
        assert told.err.startswith("miras: ")
        return told.err

    return check


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report):
    """Tell of a failure when it happens: a run that is cut short ends without a summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.when} of {report.nodeid}\n{report.longreprtext}", flush=True)


_tests = itertools.count(1)
MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True)
def forget_programs():
    """Drop compiled programs before they fill a process: Linux gives it 65,530 pieces of memory.

    A program takes some of them, and XLA crashes when there are none left. What is kept is not
    traced and compiled again by the tests that follow. Elsewhere than on Linux nothing counts
    pieces, so that programs are dropped every 50 tests.
    """
    yield
    number = next(_tests)
    if number % 10 == 0:
        few = MOST_PIECES * (number % 50 == 0)
        pieces = MAPS.read_bytes().count(b"\n") if MAPS.exists() else few
        if pieces >= MOST_PIECES:
            jax.clear_caches()


MOST_PIECES = 30_000
