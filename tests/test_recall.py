"""The study of recall: every run of it can be started, and a short one is told whole."""

import json

import pytest

from experiments import recall
from miras.analysis.costs import costs
from miras.data.task_rows import open_task
from miras.tasks import seeded


@pytest.mark.slow
@pytest.mark.parametrize("task", recall.TASKS)
@pytest.mark.sample(0.0)
def test_every_run_has_rows_and_as_many_parameters(task, tmp_path):
    configs = {name: recall.configured(name, task, 0, tmp_path) for name in recall.MODELS}
    sizes = [costs(config.model).parameters for config in configs.values()]
    assert max(sizes) < 1.02 * min(sizes)
    data = configs["yaad"].data
    opened = open_task(data, "train")
    assert data.task is not None
    for length in (times * data.sequence for times in recall.FARTHER):
        row = data.task.row(opened, seeded(0, "train", 0), length)
        assert len(row.inputs) == length
        assert row.inputs.max() < configs["yaad"].model.vocab


@pytest.mark.slow
def test_a_short_study_is_told_and_goes_on_where_it_was(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recall, "EXAMPLES", 3)
    argv = ["--models", "linear_attention", "--seeds", "1", "--results", str(tmp_path)]
    recall.main([*argv, "train.steps=2", "task.examples=64"])
    rows = recall.read(tmp_path / "recall.jsonl")
    assert [row["task"] for row in rows] == ["mqar", "niah"]
    assert list(rows[0]["accuracy"]) == ["64", "256", "1024"]
    assert list(rows[1]["exact_match"]) == ["128", "512", "2048"]
    assert recall.table(rows, "niah") in capsys.readouterr().out
    assert (tmp_path / "recall_mqar.png").stat().st_size > 10_000

    def again(*_):
        raise AssertionError("what is kept was run again")

    monkeypatch.setattr(recall, "run", again)
    recall.main(argv)
    assert json.loads((tmp_path / "recall.jsonl").read_text().splitlines()[0]) == rows[0]
