"""lm-eval's own tasks, on local files without a network, against a loop over the items."""

import json
import math
import os
import random
import textwrap
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from miras.analysis.eval import row_reader
from miras.data import DataConfig, make_tokenizer
from miras.errors import ConfigError
from miras.models import LanguageModel, LanguageModelConfig
from miras.tasks import Task
from miras.train import Run, RunConfig
from tests.analysis.eval.test_continuations import MATRIX, Slow

pytest.importorskip("lm_eval")
from miras.analysis.eval import harness
from miras.analysis.eval.harness_model import HarnessModel, encode_pair

WORDS = ("sea", "sky", "hill", "tree", "a fox", "the sun")
CHOICE = """
    task: small_choice
    dataset_path: json
    dataset_kwargs: {data_files: {test: FOLDER/choice.jsonl}}
    output_type: multiple_choice
    test_split: test
    doc_to_text: "{{query}}"
    doc_to_target: gold
    doc_to_choice: choices
    metric_list: [{metric: acc}, {metric: acc_norm}]
"""
TEXT = """
    task: small_text
    dataset_path: json
    dataset_kwargs: {data_files: {test: FOLDER/text.jsonl}}
    output_type: loglikelihood_rolling
    test_split: test
    doc_to_text: ""
    doc_to_target: "{{text}}"
    metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}]
"""
ANSWER = """
    task: small_answer
    dataset_path: json
    dataset_kwargs: {data_files: {test: FOLDER/answer.jsonl}}
    output_type: generate_until
    test_split: test
    doc_to_text: "{{query}}"
    doc_to_target: "{{answer}}"
    generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
    metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def run():
    model = LanguageModelConfig(MATRIX, width=8, layers=1, heads=1, chunk=4)
    config = RunConfig(model, DataConfig(sequence=48, batch=3))
    return Run(config, LanguageModel(model, nnx.Rngs(0)), 7, {}, make_tokenizer("byte"))


@pytest.fixture(scope="module")
def slow(run):
    return Slow(run.model)


@pytest.fixture(scope="module")
def items():
    rng = np.random.default_rng(0)
    some = lambda n: " ".join(rng.choice(WORDS, n))  # noqa: E731
    choices = [[some(1), some(2)] for _ in range(5)]
    return {
        "choice": [{"query": some(2), "choices": c, "gold": n % 2} for n, c in enumerate(choices)],
        "text": [{"text": some(n)} for n in (1, 4, 2)],
        "answer": [{"query": some(n), "answer": some(1)} for n in (1, 3)],
    }


@pytest.fixture(scope="module")
def folder(items, tmp_path_factory):
    """Task files and their items; the cache of the data library is beside them."""
    made = tmp_path_factory.mktemp("tasks")
    for name, rows in items.items():
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in (("choice", CHOICE), ("text", TEXT), ("answer", ANSWER)):
        text = textwrap.dedent(task).replace("FOLDER", str(made))
        (made / f"{name}.yaml").write_text(text)
    (made / "group.yaml").write_text("group: small_group\ntask: [small_choice, small_text]\n")
    with pytest.MonkeyPatch.context() as patch:
        import datasets
        import huggingface_hub.constants

        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", made / "cache")
        yield str(made)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Pieces of 16 tokens only."""
    make = row_reader.make_reader

    def made(run):
        reader = make(run)
        reader.sizes = (16,)
        return reader

    monkeypatch.setattr("miras.analysis.eval.harness_model.make_reader", made)


def started(text):
    return np.append(np.int32(256), np.frombuffer(text.encode(), np.uint8).astype(np.int32))


@pytest.mark.slow
def test_results_are_those_of_a_loop_over_the_items(run, slow, items, folder):
    names, done = ("small_group", "small_answer"), []
    state = lambda: (random.getstate(), np.random.get_state()[1].tolist())  # noqa: E731  # pyright: ignore
    before = state()
    found = harness.evaluate_harness(run, names, include=folder, name="a run", progress=done.append)
    assert state() == before
    assert "DISABLE_MULTIPROC" not in os.environ
    assert sum(done) == 5 * 2 + 3 + 2
    got = {(score.task, score.metric): score for score in found.scores}

    right, normed = [], []
    for item in items["choice"]:
        context, choices = started(item["query"]), item["choices"]
        sums = [
            slow.score(np.append(context, started(f" {c}")[1:]), len(context))[0].sum()
            for c in choices
        ]
        right.append(np.argmax(sums) == item["gold"])
        normed.append(np.argmax(np.divide(sums, [len(c) for c in choices])) == item["gold"])
    assert got["small_choice", "acc"].value == np.mean(right)
    assert got["small_choice", "acc_norm"].value == np.mean(normed)
    assert got["small_choice", "acc"].items == 5

    nats = [slow.score(started(item["text"]), 1)[0].sum() for item in items["text"]]
    words = sum(len(item["text"].split()) for item in items["text"])
    size = sum(len(item["text"]) for item in items["text"])
    assert got["small_text", "word_perplexity"].value == pytest.approx(math.exp(-sum(nats) / words))
    assert got["small_text", "byte_perplexity"].value == pytest.approx(math.exp(-sum(nats) / size))

    assert got["small_answer", "exact_match"].value == 0
    saved = json.loads(found.to_json())
    assert (saved["run"], saved["step"], saved["limit"]) == ("a run", 7, None)
    assert len(saved["scores"]) == len(found.scores) == 5
    assert found.table().row_count == 5


class Request:
    def __init__(self, *args):
        self.args = args


def test_completions_stop_where_a_task_says_so(run, slow):
    model, text = HarnessModel(run), "the sea"
    whole = bytes(slow.decode(started(text), 5).tolist()).decode("utf-8", "replace")
    ask = lambda **options: model.generate_until([Request(text, options)])[0]  # noqa: E731
    assert ask(until=[], max_gen_toks=5) == whole
    assert ask(until=whole[2], max_gen_toks=5, do_sample=False) == whole[: whole.index(whole[2])]
    drawn = {ask(max_gen_toks=8, temperature=5.0, do_sample=True) for _ in range(2)}
    assert len(drawn) == 1  # the same seed
    with pytest.raises(ConfigError, match="sets num_beams=4 for generation"):
        ask(num_beams=4)


@pytest.mark.parametrize(
    ("context", "continuation", "parts"),
    [
        ("a b", " c", ("a b", " c")),
        ("a b  ", "c", ("a b", "  c")),
        ("", "c", ("", "c")),
        (" ", "c", ("", " c")),
        ("a", "", ("a", "")),
    ],
)
def test_spaces_move_from_a_context_to_its_continuation(context, continuation, parts):
    pair = encode_pair(make_tokenizer("byte"), context, continuation)
    np.testing.assert_array_equal(pair.context, started(parts[0]))
    np.testing.assert_array_equal(pair.tokens, started(parts[1])[1:])


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        (["small_chioce"], {}, "unknown lm-eval task 'small_chioce': did you mean 'small_choice'"),
        (["missing_data"], {}, "'missing_data' cannot be loaded .*--include-path.*--data"),
        (["missing_code"], {}, "'missing_code' needs another package .*no_such_package"),
        ([], {}, "--lm-eval names no task"),
        (["small_choice"], {"limit": 0}, "limit=0 must be at least 1"),
        (["small_choice"], {"include": "nowhere"}, "--include-path 'nowhere' is not a folder"),
        (["small_choice"], {"data": "nowhere"}, "--data 'nowhere' is not a folder"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(names, options, told, run, folder, monkeypatch):
    from lm_eval.tasks import TaskManager

    made = TaskManager.__init__  # its own 14,000 tasks take ten seconds to list
    monkeypatch.setattr(
        TaskManager,
        "__init__",
        lambda self, **given: made(self, **(given | {"include_defaults": False})),
    )
    for name, line in {
        "missing_data": "dataset_path: an/absent_set",
        "missing_code": "custom_dataset: !function code.read",
    }.items():
        text = f"task: {name}\n{line}\noutput_type: multiple_choice\ntest_split: test\n"
        Path(folder, f"{name}.yaml").write_text(text)
    Path(folder, "code.py").write_text("import no_such_package\n")
    with pytest.raises(ConfigError, match=told):
        harness.evaluate_harness(run, names, **{"include": folder} | options)


def test_a_run_needs_text_and_ids_for_it(run):
    symbols = run.config.data.__class__(task=Task.registry.build("mqar"))
    with pytest.raises(ConfigError, match="lm-eval needs a run that was trained on text"):
        HarnessModel(run._replace(config=RunConfig(run.config.model, symbols)))
    few = LanguageModelConfig(MATRIX, width=8, layers=1, heads=1, chunk=4, vocab=100)
    with pytest.raises(ConfigError, match="the tokenizer has 257 ids and the model 100"):
        HarnessModel(run._replace(config=RunConfig(few, run.config.data)))


def test_the_library_is_an_extra(run, monkeypatch):
    monkeypatch.setattr(harness, "LIBRARY", "no_such_library")
    with pytest.raises(ConfigError, match=r"pip install 'miras-jax\[eval\]'"):
        harness.evaluate_harness(run, ["piqa"])


SCHEMAS = {
    "hellaswag": {"ind": 0, "ctx": "a fox", "endings": ["sea", "sky"], "label": 1},
    "piqa": {"query": "Question: a tree?\n", "choices": ["sea", "sky"], "gold": 1},
    "arc_easy": {"query": "a tree?", "choices": ["sea", "sky"], "gold": 1},
    "copa": {"query": "the fox ran, because", "choices": ["sea", "sky"], "gold": 1},
}
PROMPTS = {
    "hellaswag": "a fox",
    "piqa": "Question: a tree?\nAnswer:",
    "arc_easy": "Question: a tree?\nAnswer:",
    "copa": "the fox ran, because",
}


def test_the_task_files_read_a_folder_that_the_user_names(run, tmp_path, monkeypatch):
    include = str(Path(__file__).parents[3] / "experiments" / "tasks")
    for name, item in SCHEMAS.items():
        (tmp_path / f"{name}_validation.jsonl").write_text(f"{json.dumps(item)}\n" * 2)
    asked = []
    monkeypatch.setattr(
        HarnessModel,
        "loglikelihood",
        lambda self, requests: [asked.append(r.args) or (-len(r.args[1]), False) for r in requests],
    )
    found = harness.evaluate_harness(
        run, list(SCHEMAS), include=include, data=str(tmp_path), limit=1
    )
    assert asked == [(text, f" {c}") for text in PROMPTS.values() for c in ("sea", "sky")]
    assert {score.items for score in found.scores} == {1}
    with pytest.raises(ConfigError, match=r"named: give it with --data"):
        harness.evaluate_harness(run, ["piqa"], include=include)
    (tmp_path / "piqa_test.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="has 2 files piqa"):
        harness.evaluate_harness(run, ["piqa"], include=include, data=str(tmp_path))
