"""Every code block of the README and of docs/ runs, in order, in an empty folder."""

import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess

import pytest

import miras
from benchmarks import precision
from experiments import forecasting, presets, recall
from miras.bias.base import Bias
from miras.memory.base import Memory
from miras.optim.base import Algorithm
from miras.presets import PRESETS
from miras.retention.base import Retention
from miras.train import RunConfig
from tests.small_pages import SMALL

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "PACKAGE.md",
    ROOT / "experiments" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def runnable(page: pathlib.Path) -> list[tuple[str, str]]:
    """The page's blocks; `make` has targets of its own in CI and runs there."""
    text = page.read_text()
    for long, short in SMALL.get(str(page.relative_to(ROOT)), {}).items():
        assert text.count(long) == 1, long
        text = text.replace(long, short)
    return [(language, code) for language, code in BLOCK.findall(text) if code[:5] != "make "]


RUN = [page for page in PAGES if runnable(page)]


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs(page, python, tmp_path, tmp_path_factory):
    bin_folder = tmp_path_factory.mktemp("bin")
    command = bin_folder / "miras"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(python)} -m miras "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }
    for language, code in runnable(page):
        argv = ["bash", "-euc", code] if language == "bash" else [*python, "-c", code]
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def test_every_page_is_found():
    assert {"README.md", "concepts.md", "data.md", "training.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_file_that_a_page_names_exists(page):
    folders = "miras|tests|docs|benchmarks|experiments"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("part", [Memory, Bias, Retention, Algorithm])
def test_the_readme_names_every_member(part):
    axis = part.registry.axis
    page = (ROOT / "README.md").read_text()
    (row,) = re.findall(rf"^\| \[{axis}\]\(.*\) \| (.*) \|$", page, re.MULTILINE)
    # Tests in the same process may have registered others.
    kinds = [
        kind
        for kind in part.registry.names()
        if part.registry.get(kind).__module__.startswith("miras.")
    ]
    assert sorted(re.findall(r"`(\w+)`", row)) == sorted(kinds)


def test_the_readme_counts_the_presets():
    (count,) = re.findall(r"(\d+) named models", (ROOT / "README.md").read_text())
    own = [p for p in PRESETS.values() if p.build.__module__.startswith("miras.")]
    assert int(count) == len(own)


def test_the_page_on_the_command_line_has_every_command():
    path = ROOT / "docs" / "cli_hook.py"
    hook = runpy.run_path(str(path))
    page = hook["on_page_markdown"]((ROOT / "docs" / "cli.md").read_text())
    assert hook["MARK"] not in page
    for command in ("train", "eval", "describe", "generate", "stream", "ablate", "inspect"):
        assert f"## miras {command}\n" in page
    assert "| `--out DIR` |" in page


@pytest.mark.parametrize("task", recall.TASKS)
def test_the_experiments_page_has_what_was_recalled(task):
    kept = recall.read(recall.RESULTS / "recall.jsonl")
    assert recall.table(kept, task) in (ROOT / "experiments" / "README.md").read_text()


def test_the_recipe_for_mqar_is_the_one_that_was_measured():
    page = (ROOT / "docs" / "tasks.md").read_text()
    command = page.partition("miras train ")[2].partition(" --out")[0].replace("\\\n", " ")
    preset, *words = command.split()
    new = RunConfig(model=miras.preset(preset))
    measured = miras.override(new, *recall.SIZE, *recall.TASKS["mqar"], recall.RECIPE[0])
    assert miras.override(new, *words) == measured
    scores = dict(
        re.findall(
            r"^\| `([^`]*)` \| 3 \| ([^|]*) \|",
            recall.table(recall.read(recall.RESULTS / "recall.jsonl"), "mqar"),
            re.MULTILINE,
        )
    )
    told = re.findall(r"^\| (`.*`) \| .* \| (\d\.\d\d \(.*\)) \|$", page, re.MULTILINE)
    assert len(told) == 6
    for names, score in told:
        for name in re.findall(r"`(.*?)`", names.partition(" | ")[0]):
            assert scores[name + " conv" if name == "transformer++" else name] == score
            change = recall.MODELS[name][1:]
            assert all(word.removeprefix("rule.") in page for word in change)


def test_the_experiments_page_has_the_forecasts():
    kept = (ROOT / "experiments" / "results" / "forecasting.jsonl").read_text().splitlines()
    tables = forecasting.markdown([json.loads(line) for line in kept])
    assert tables in (ROOT / "experiments" / "README.md").read_text()


def test_the_experiments_page_has_the_presets_side_by_side():
    kept = presets.comparable(presets.read(presets.RESULTS / "presets.jsonl"))
    assert presets.table(kept) in (ROOT / "experiments" / "README.md").read_text()


def test_the_readme_has_the_kept_ratios_to_peers():
    kept = (ROOT / "benchmarks" / "results" / "peers.md").read_text()
    peer, number = r"(titans-pytorch|qwen3-next)(?:, chunk (16))?[^|]*", r"([\d.,]+)"
    row = rf"^\| {peer}\| {number} \| {number}x \| {number}x \|$"
    told = re.findall(row, (ROOT / "README.md").read_text(), re.MULTILINE)
    for peer, chunk, tokens, seconds, memory in told:
        start = f"| {peer} | {chunk or 64} | forward + backward | {tokens.replace(',', '')} |"
        (line,) = [line for line in kept.splitlines() if line.startswith(start)]
        cells = [cell.strip() for cell in line.split("|")]
        assert (cells[7], cells[11]) == (seconds, memory)
    assert len(told) == 6


def test_the_page_on_precision_has_the_kept_results():
    kept = json.loads((ROOT / "benchmarks" / "results" / "precision.json").read_text())
    assert precision.table(kept["rows"]) in (ROOT / "docs" / "precision.md").read_text()


def test_the_page_on_precision_has_the_kept_sizes():
    kept = (ROOT / "benchmarks" / "results" / "memory.md").read_text()
    (rows,) = re.findall(r"^## titans_lmm$.*?((?:^\|[^\n]*\n)+)", kept, re.MULTILINE | re.DOTALL)
    assert rows in (ROOT / "docs" / "precision.md").read_text()


AXES = {
    "memory": miras.memory.Memory,
    "bias": miras.bias.Bias,
    "retention": miras.retention.Retention,
    "algorithm": miras.optim.Algorithm,
}


@pytest.mark.parametrize("axis", AXES)
def test_each_member_has_a_row_and_a_paragraph(axis):
    page = (ROOT / "docs" / f"{axis}.md").read_text()
    built_in = [k for k in AXES[axis].registry.names() if _is_own(AXES[axis].registry.get(k))]
    assert len(built_in) >= 6
    for kind in built_in:
        assert f"| `{kind}` |" in page
        assert f"**{kind}.**" in page, f"{kind} has no paragraph"


def _is_own(member: type) -> bool:
    return member.__module__.startswith("miras.")
