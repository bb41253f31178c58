"""Commands on the pages that launch and plan runs; `interop` has those of other tools."""

import json
import pathlib
import re
import shlex
import subprocess

import pytest

from miras.cli import plan, prepare, train
from miras.cli.arguments import Parser, parse
from miras.cli.main import main
from miras.cli.options import add_plugins

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def commands(page, program):
    """The lines of a page's blocks `console` that call a program."""
    text = (DOCS / page).read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)
    return [x for block in blocks for x in re.findall(rf"^{program} .*$", block, re.M)]


LAUNCH = [(p.name, x) for p in sorted(DOCS.glob("*.md")) for x in commands(p.name, "miras launch")]


def words(line):
    return shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize(("page", "line"), LAUNCH)
def test_a_command_of_a_page_writes_the_files_that_it_submits(page, line, tmp_path, capsys):
    given = words(line)
    end = given.index("--")
    assert main([*given[:end], "--out", str(tmp_path), *given[end:]]) == 0
    told = capsys.readouterr().out
    for path in tmp_path.iterdir():
        if path.suffix in (".sh", ".sbatch"):
            subprocess.run(["bash", "-n", path], check=True)
    submit = re.findall(r"^    ((?:sky|bash|ray) .*)$", told[told.index("To submit") :], re.M)
    if page == "tpu.md" and "--name" in given:
        shown = [x for tool in ("sky", "bash", "ray") for x in commands(page, tool)]
        assert submit[0] in shown


def test_the_script_of_the_page_is_the_written_one(tmp_path):
    (line,) = commands("scaling.md", "miras launch slurm")
    given = words(line)
    end = given.index("--")
    assert main([*given[:end], "--out", str(tmp_path), *given[end:]]) == 0
    text = (DOCS / "scaling.md").read_text()
    (script,) = re.findall(r"^```shell\n(#!.*?)^```", text, re.M | re.S)
    assert script == (tmp_path / "miras.sbatch").read_text()


def test_the_figures_of_the_page_are_those_of_its_plan(capsys):
    (line,) = commands("tpu.md", "miras plan")
    assert main([*words(line), "--no-compile", "--json"]) == 0
    plans = {found["slice"]: found for found in json.loads(capsys.readouterr().out)["plans"]}
    text = (DOCS / "tpu.md").read_text()
    rows = re.findall(r"^\| (\S+-\d+) \| (\S.*?) \| ([\d.]+) \| ([\d,]+) \|", text, re.M)
    assert [name for name, *_ in rows] == re.findall(r"--on (\S+)", line)
    for name, _, peak, step in rows:
        found = plans[name]
        assert found["memory"]["peak"] / 2**30 == pytest.approx(float(peak), rel=0.15)
        seconds = float(step.replace(",", "")) / 1000
        assert found["seconds"]["step"] == pytest.approx(seconds, rel=0.15)


def test_the_other_commands_of_the_pages_are_valid():
    for page in ("tpu.md", "training.md"):
        for line in commands(page, "miras prepare"):
            assert parsed(prepare, line).sequence == 4096
        for line in commands(page, "miras train"):
            args = parsed(train, line)
            if args.recipe:
                train.planned_config(args, with_data=False)
    for line in commands("tpu.md", "miras plan"):
        assert parsed(plan, line).recipe == "miras-340m-15b"


def parsed(command, line):
    """The arguments of a command line, by the parser of its command."""
    parser = Parser(prog="miras")
    choices = parser.add_subparsers(parser_class=Parser)
    command.add_parser(choices)
    parser.commands = dict(choices.choices)
    for each in parser.commands.values():
        add_plugins(each)
    return parse(parser, words(line))
