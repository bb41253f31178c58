"""Forecasting: tables, parts, windows and baselines, and a run from end to end."""

import json
import subprocess
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from miras.cli.main import main
from miras.cli.runs import run_config
from miras.config import config_hash, from_json, override, to_dict, to_json
from miras.data import DataConfig, make_loader
from miras.errors import ConfigError
from miras.tasks import Forecast
from miras.tasks.forecasting.baselines import ridge, seasonal_naive
from miras.tasks.forecasting.table import part_sizes, read_table, split_table
from miras.train import RunConfig, load_run, train
from miras.train.loggers.jsonl import read_metrics
from tests.devices import environment

ROWS, L, H = 60, 8, 3
WINDOWS = 12 - H + 1  # of the test part, 20 % of the rows


@pytest.fixture(scope="module")
def frame():
    """Hourly values of two series, a text and a date."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2020-01-01T00:00:00") + 3600 * np.arange(ROWS)
    wave = np.sin(2 * np.pi * np.arange(ROWS) / 6)
    return pa.table(
        {
            "date": times.astype("datetime64[s]"),
            "load": 5 + 2 * wave + 0.1 * rng.normal(size=ROWS),
            "place": ["a"] * ROWS,
            "count": rng.integers(0, 9, ROWS),
        }
    )


@pytest.fixture(scope="module")
def table(frame, tmp_path_factory):
    """The table as a CSV file."""
    path = tmp_path_factory.mktemp("table") / "load.csv"
    pyarrow.csv.write_csv(frame, path)
    return path


def data(source, *words, **fields):
    config = DataConfig(source=str(source), task=Forecast(lookback=L, horizon=H), batch=4, **fields)
    return override(config, *words)


def test_a_table_is_its_columns_of_numbers(frame, table, tmp_path):
    found = read_table(str(table))
    assert found.names == ("load", "count")
    assert found.season == 24
    np.testing.assert_allclose(found.values[:, 1], frame["count"].to_numpy())
    parquet = tmp_path / "load.parquet"
    pyarrow.parquet.write_table(frame, parquet)
    again = read_table(str(parquet))
    np.testing.assert_allclose(again.values, found.values)
    assert (again.names, again.season) == (found.names, found.season)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\nx,y\n", "no column of numbers, only a, b"),
        ("a,b\n1,2\n3,\n", "no number in row 2 of column 'b'"),
        (None, "cannot be read as a table of series"),
    ],
)
def test_what_is_no_table_is_an_error(text, said, tmp_path):
    path = tmp_path / "table.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_table(str(path))


def test_parts_are_those_of_the_papers():
    assert part_sizes("/data/ETTh1.csv", 17420) == (8640, 2880, 2880)
    assert part_sizes("ETTm2.csv", 69680) == (34560, 11520, 11520)
    assert part_sizes("national_illness.csv", 966) == (676, 97, 193)


def test_parts_are_standardised_by_training(table):
    found = read_table(str(table))
    parts = split_table(found, (40, 8, 10), L, H)
    known = found.values[:40]
    want = (found.values - known.mean(axis=0)) / known.std(axis=0)
    np.testing.assert_allclose(parts.train, want[:40], atol=1e-5)
    np.testing.assert_allclose(parts.validation, want[32:48], atol=1e-5)
    np.testing.assert_allclose(parts.test, want[40:58], atol=1e-5)
    constant = found._replace(values=np.ones((ROWS, 1)))
    np.testing.assert_array_equal(split_table(constant, (40, 8, 10), L, H).test, 0.0)
    for sizes, said in (((50, 8, 10), "68 rows"), ((40, 2, 10), "validation part has 2 rows")):
        with pytest.raises(ConfigError, match=said):
            split_table(found, sizes, L, H)


def rows(config, split, **options):
    """All rows of a split and the number of batches."""
    batches = list(make_loader(config, split, align=16, epochs=1, **options))
    both = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return {name: x[both["mask"]] for name, x in both.items()}, len(batches)


def test_every_window_of_every_series_is_a_row(table):
    config = data(table)
    task: Any = config.task
    parts = task.read_parts(config)
    found, batches = rows(config, "test")
    assert batches == 5  # of 4 rows; the last one is not dropped
    assert len(found["inputs"]) == WINDOWS * 2
    for n in range(WINDOWS * 2):
        window, series = divmod(n, 2)
        whole = np.concatenate([found["inputs"][n], found["targets"][n]])
        np.testing.assert_array_equal(whole, parts.test[window : window + L + H, series])
        assert found["series"][n] == series
    shuffled, _ = rows(config, "train", shuffle=True)
    plain, _ = rows(config, "train", shuffle=False)
    assert len(plain["inputs"]) == 2 * (42 - L - H + 1)
    assert not np.array_equal(shuffled["inputs"], plain["inputs"])
    np.testing.assert_array_equal(
        np.sort(shuffled["inputs"], axis=0), np.sort(plain["inputs"], axis=0)
    )


def test_a_position_restores(table):
    config = data(table)
    reading = make_loader(config, "train", align=16)
    for _ in range(20):  # over more than one pass of 62 rows
        next(reading)
    state = json.loads(json.dumps(reading.get_state()))
    again = make_loader(config, "train", align=16)
    again.set_state(state)
    for _ in range(3):
        want, got = next(reading), next(again)
        for name in want:
            np.testing.assert_array_equal(got[name], want[name])
    with pytest.raises(ConfigError, match="horizon was 3, is 2"):
        make_loader(override(config, "task.horizon=2"), "train", align=16).set_state(state)


def test_baselines_equal_slow_loops(table):
    parts = split_table(read_table(str(table)), (42, 6, 12), L, H)
    x, y = [], []
    for series in range(2):
        for start in range(42 - L - H + 1):
            window = parts.train[start : start + L + H, series].astype(float)
            x.append(window[:L] - window[:L].mean())
            y.append(window[L:] - window[:L].mean())
    stacked = np.concatenate([np.array(x), np.sqrt(100.0) * np.eye(L)])
    weights = np.linalg.lstsq(stacked, np.concatenate([np.array(y), np.zeros((L, H))]))[0]
    linear, naive = [], []
    for series in range(2):
        for start in range(WINDOWS):
            window = parts.test[start : start + L + H, series].astype(float)
            mean = window[:L].mean()
            linear.append((window[:L] - mean) @ weights + mean - window[L:])
            naive.append(window[L - 6 : L - 6 + H] - window[L:])
    found = ridge(parts, L, H), seasonal_naive(parts.test, L, H, 6)
    for errors, residuals in zip(found, (linear, naive), strict=True):
        assert errors.mse == pytest.approx(np.mean(np.square(residuals)), rel=1e-9)
        assert errors.mae == pytest.approx(np.mean(np.abs(residuals)), rel=1e-9)
    longer = seasonal_naive(parts.test, L, 4, 3)  # a season is repeated
    again = [parts.test[s + 5 : s + 8, c][np.arange(4) % 3] for c in (0, 1) for s in range(9)]
    truth = [parts.test[s + L : s + L + 4, c] for c in (0, 1) for s in range(9)]
    assert longer.mae == pytest.approx(np.mean(np.abs(np.array(again) - truth)), rel=1e-5)


SMALL = "width=8 heads=2 layers=1 chunk=2 remat=false data.batch=4 task.patch=4 task.stride=2"
SMALL += f" task.lookback={L} task.horizon={H} steps=4 eval_every=2 eval_batches=50"
SMALL += " log_every=2 health_every=2 checkpoint_every=2"


def small(table, *words):
    return ["task=forecast", f"data.source={table}", *SMALL.split(), *words]


def test_a_run_prints_lookback_and_baselines(table, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "linear_attention", *small(table, "task.affine=true"), "--out", out]) == 0
    said = capsys.readouterr().out
    assert f"lookback {L}, horizon {H}" in said
    assert main(["eval", out]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"lookback {L}" in said
    assert "seasonal naive (1 of 8 values) MSE" in said
    assert "ridge (8 values less their mean) MSE" in said
    run = load_run(out)
    assert to_dict(run.config)["data"]["task"]["series"] == 2
    held_out = [x for x in read_metrics(tmp_path / "run" / "metrics.jsonl") if "mse" in x]
    assert {line["windows"] for line in held_out} == {2 * (6 - H + 1)}  # of validation
    text = to_json(run.config)
    assert config_hash(from_json(RunConfig, text)) == config_hash(run.config)
    assert main(["eval", out, "--data", str(tmp_path / "none.csv")]) == 2


def test_the_errors_are_those_of_the_forecasts(table, tmp_path):
    config = run_config("linear_attention", small(table), None)
    found: Any = train(config, tmp_path / "run").held_out
    model: Any = load_run(tmp_path / "run").model
    rows_of_test = rows(config.data, "test")[0]
    residuals = np.asarray(model(rows_of_test["inputs"])) - rows_of_test["targets"]
    assert found.mse == pytest.approx(np.mean(np.square(residuals)), rel=1e-5)
    assert found.mae == pytest.approx(np.mean(np.abs(residuals)), rel=1e-5)
    assert found.windows == len(residuals) == 2 * WINDOWS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("task.horizon=0", "horizon=0 must be at least 1"),
        ("task.patch=20", "lookback=8 is too short for patch=20"),
        ("task.parts=[1,2]", "must be three numbers"),
        ("task.loss=cubic", "one of 'mse', 'mae', 'huber'"),
        ("task.horizon=30", "training part|validation part"),
        ("data.sequence=64", "the rows of the task have one length"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(table, tmp_path, capsys, words, said):
    out = str(tmp_path / "run")
    with pytest.raises(ConfigError, match=said):
        train(run_config("linear_attention", small(table, words), None), out)


ON_DEVICES = """
import sys
from miras.config import from_json
from miras.train import RunConfig, train
print(train(from_json(RunConfig, sys.argv[1]), sys.argv[2]).held_out.mse)
"""


@pytest.mark.slow
def test_devices_share_the_windows(table, python, tmp_path):
    config = run_config("linear_attention", small(table, "task.skip=linear"), None)
    want = train(config, tmp_path / "one").held_out._asdict()["mse"]
    meshed = override(config, "mesh.fsdp=2", "mesh.tensor=2", "mesh.max_replicated=1")
    done = subprocess.run(
        [*python, "-c", ON_DEVICES, to_json(meshed), str(tmp_path / "four")],
        env=environment(4),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(want, rel=1e-4)
