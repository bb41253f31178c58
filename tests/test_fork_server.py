"""Programs that the fork server runs end and print as they do when python runs them."""

import subprocess
import sys

import pytest

PROGRAMS = {
    "ends": "print('told', end='')",
    "raises": "import sys; print('told', flush=True); raise ValueError('wrong')",
    "code": "import sys; sys.exit(3)",
    "nothing": "import sys; sys.exit()",
    "sentence": "import sys; sys.exit('a sentence')",
    "exit function": "import atexit; atexit.register(print, 'at the end')",
    "thread": "import threading, time; "
    "threading.Thread(target=lambda: (time.sleep(0.05), print('later'))).start()",
}


@pytest.mark.multiprocess
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_ends_as_in_python(program, python, tmp_path):
    def run(words):
        return subprocess.run([*words, "-c", program], cwd=tmp_path, capture_output=True, text=True)

    got, want = run(python), run([sys.executable])
    assert (got.returncode, got.stdout) == (want.returncode, want.stdout)
    assert got.stderr.splitlines()[-1:] == want.stderr.splitlines()[-1:]


@pytest.mark.multiprocess
def test_modules_that_a_program_starts_are_run_by_the_server(python, tmp_path):
    (tmp_path / "inner.py").write_text(
        "import sys; print(sys.argv[1], 'miras.train' in sys.modules)"
    )
    code = "import subprocess, sys; subprocess.run([sys.executable, '-u', {}, check=True)"
    for words, imported in (("'-m', 'inner', 'x']", True), ("'inner.py', 'x']", False)):
        done = subprocess.run(
            [*python, "-c", code.format(words)], cwd=tmp_path, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, f"x {imported}\n"), done.stderr
