"""The commands of `miras launch` on the pages of the documentation, and what one of them writes."""

import pathlib
import re
import shlex
import subprocess

import pytest

from miras.cli.main import main

DOCS = pathlib.Path(__file__).parents[2] / "docs"
JOINED = {page: page.read_text().replace("\\\n", " ") for page in sorted(DOCS.glob("*.md"))}
COMMANDS = [
    line
    for text in JOINED.values()
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)
    for line in re.findall(r"^miras launch .*$", block, re.M)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_a_page_writes_files(line, tmp_path):
    words = shlex.split(line, comments=True)[1:]
    end = words.index("--")
    assert main([*words[:end], "--out", str(tmp_path), *words[end:]]) == 0
    for path in tmp_path.glob("*.s*"):
        if path.suffix in (".sh", ".sbatch"):
            subprocess.run(["bash", "-n", path], check=True)
    assert list(tmp_path.iterdir())


def test_the_script_of_the_page_is_the_written_one(tmp_path):
    text = (DOCS / "scaling.md").read_text()
    (line,) = re.findall(r"^miras launch slurm .*$", text, re.M)
    words = shlex.split(line)[1:]
    end = words.index("--")
    assert main([*words[:end], "--out", str(tmp_path), *words[end:]]) == 0
    (script,) = re.findall(r"^```shell\n(#!.*?)^```", text, re.M | re.S)
    assert script == (tmp_path / "miras.sbatch").read_text()
