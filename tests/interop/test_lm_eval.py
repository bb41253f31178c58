"""lm-eval's backend `hf` gives an exported run the scores of `miras eval --lm-eval`.

`MIRAS_TORCH_PYTHON` names a Python with torch, transformers, accelerate and lm-eval.
"""

import json
import os
import subprocess
import textwrap

import numpy as np
import pytest

from miras.cli.main import main
from tests.analysis.eval.test_harness import ANSWER, CHOICE, TEXT, WORDS, Request

pytestmark = pytest.mark.interop
PYTHON = os.environ.get("MIRAS_TORCH_PYTHON")
METRICS = "{metric: acc}, {metric: acc_norm}, {metric: brier_score}"  # the last varies with nats
SMALL = ("width=32", "layers=2", "heads=2", "data.sequence=64", "data.batch=2", "steps=2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, its export and the files of tasks, one of them with the run's own completions."""
    from miras.analysis.eval.harness_model import HarnessModel
    from miras.cli.runs import load_run

    made = tmp_path_factory.mktemp("lm_eval")
    # A large rate, so that the scores of a few steps differ from those of a uniform guess.
    words = [*SMALL, "train.learning_rate=0.05", "train.warmup=0"]
    assert main(["train", "yaad", *words, "--out", str(made / "run")]) == 0
    assert main(["export", str(made / "run"), str(made / "exported")]) == 0
    rng = np.random.default_rng(0)
    some = lambda n: " ".join(rng.choice(WORDS, n))  # noqa: E731
    queries = [some(n) for n in (1, 3, 9)]
    options = {"until": ["\n"], "max_gen_toks": 4}
    requests = [Request(query, options) for query in queries]
    answers = HarnessModel(load_run(str(made / "run"))).generate_until(requests)
    choices = [[some(1), some(2), some(1) + " é"] for _ in range(8)]
    rows = {
        "choice": [
            {"query": some(n % 3), "choices": c, "gold": n % 3} for n, c in enumerate(choices)
        ],
        "text": [{"text": some(n)} for n in (1, 40, 2)],
        "answer": [{"query": q, "answer": a} for q, a in zip(queries, answers)],
    }
    choice = CHOICE.replace("{metric: acc}, {metric: acc_norm}", METRICS)
    for name, task in (("choice", choice), ("text", TEXT), ("answer", ANSWER)):
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
        (made / f"{name}.yaml").write_text(textwrap.dedent(task).replace("FOLDER", str(made)))
    return made


def ours(folder, tasks):
    """Score by task and metric, of `miras eval`."""
    argv = ["eval", str(folder / "run"), "--lm-eval", tasks, "--include-path", str(folder)]
    assert main([*argv, "--out", str(folder / "ours")]) == 0
    found = json.loads((folder / "ours" / "lm_eval.json").read_text())["scores"]
    return {(score["task"], score["metric"]): score["value"] for score in found}


def theirs(folder, tasks, *options):
    """As `ours`, of lm-eval's command."""
    assert PYTHON, "set MIRAS_TORCH_PYTHON to a Python with torch, transformers and lm-eval"
    out = folder / f"theirs_{tasks}"
    arguments = ",".join([f"pretrained={folder / 'exported'}", "trust_remote_code=True", *options])
    command = ["-m", "lm_eval", "--model", "hf", "--model_args", arguments, "--tasks", tasks]
    command += ["--include_path", str(folder), "--output_path", str(out), "--device", "cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    subprocess.run([PYTHON, *command], check=True, env=environment, cwd=folder)
    (path,) = out.rglob("results_*.json")
    return {
        (task, name.removesuffix(",none")): value
        for task, scores in json.loads(path.read_text())["results"].items()
        for name, value in scores.items()
        if isinstance(value, float | int) and "stderr" not in name
    }


@pytest.mark.parametrize(
    ("tasks", "options", "count"),
    [
        ("small_choice,small_answer", (), 4),
        ("small_text", ("add_bos_token=False",), 2),  # lm-eval puts it before a rolling text itself
    ],
)
def test_the_scores_are_the_same(tasks, options, count, folder, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    expected, found = ours(folder, tasks), theirs(folder, tasks, *options)
    assert len(expected) == count
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-4 * max(1, abs(value))), name
    assert expected.get(("small_answer", "exact_match"), 1) == 1
