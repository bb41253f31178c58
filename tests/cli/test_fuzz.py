"""Whatever is typed, and whatever lies in a folder: exit code 0, 1 or 2 and one sentence.

Training and the counting of costs take long and are replaced; all that reads and checks is real.
"""

import contextlib
import importlib
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from miras.cli.arguments import Parser
from miras.cli.main import build_parser, main
from miras.config import to_dict, to_paths
from miras.errors import ConfigError
from miras.models.session import load_notes
from miras.presets import PRESETS, preset
from miras.train import RunConfig
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.loggers.jsonl import read_metrics
from miras.train.runs.run_folder import RunFolder


def fuzz(examples: int):
    """Seeded, without a clock."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a failure is shown as it was drawn: to shrink it takes minutes
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


FIELDS = sorted(set(to_paths(RunConfig(model=preset("yaad")))))
NUMBERS = [
    "0", "-1", "1e400", "-1e400", "1e-400", "nan", "inf", "-Infinity", ".5", "5.", "+7", "1_000",
    "0x10", "١٢", "²", "1e9", "9" * 20, "9" * 400, "9" * 5000, "1e" + "9" * 400, "0." + "0" * 5000,
]  # fmt: skip
NESTED = [
    "[" * 5000, "[" * 5000 + "]" * 5000, '{"kind":' * 3000,
    '{"kind":"mlp","depth":' + "9" * 5000 + "}",
    '{"kind":' * 3000 + "1" + "}" * 3000, "[[1]]", "{}", "[]", '{"kind":[]}', '{"kind":{}}', '""',
    '{"":1}', '{"kind":"mlp","kind":"mlp"}', '"', "null", "None", "true",
]  # fmt: skip
ODD = [
    "",
    " ",
    "\0",
    "\udcff",
    "a\0b",
    "\udcff/x",
    "é",
    "\n",
    "=",
    "==",
    "a=b=c",
    "x" * 5000,
    "/",
    "~",
    "~nobody/x",
    "\ud800",
    ".",
]
VALUES = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(NESTED), st.sampled_from(ODD), st.text(max_size=8)
)
WORDS = st.one_of(
    st.builds("{}={}".format, st.sampled_from(FIELDS), VALUES),
    st.builds("{}={}".format, st.sampled_from([f.rpartition(".")[2] for f in FIELDS]), VALUES),
    st.builds("{}={}".format, VALUES, VALUES),
    st.sampled_from([*PRESETS, "steps=4", "bias=l2"]),
    VALUES,
)
COMMANDS = sorted(build_parser().commands)


def options(command: str) -> list[str]:
    parser: Parser = build_parser().commands[command]
    return [name for name in parser.options if name not in ("--help", "--plugin")]


@st.composite
def command_lines(draw) -> list[str]:
    """A command, its options with any values, and words."""
    command = draw(st.sampled_from(COMMANDS))
    argv = draw(st.lists(WORDS, max_size=3))
    for name in draw(st.lists(st.sampled_from([*options(command), "--nothing"]), max_size=2)):
        argv += [name] if draw(st.booleans()) else [name, draw(VALUES)]
    return [command, *argv]


@pytest.fixture(scope="module", autouse=True)
def here(tmp_path_factory):
    """An empty folder to be in, and no training."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIRAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.chdir(folder)
        yield folder


@pytest.fixture
def checked_only(monkeypatch):
    """Commands read and check what they are given, and then stop."""

    class Done(Exception):  # noqa: N818  (no error)
        pass

    def stop(*args, **kwargs):
        raise Done

    def check(config, out, **_):
        RunFolder(out).check(config)
        raise Done

    monkeypatch.setattr("miras.train.train", check)
    for name in (
        "miras.analysis.costs.costs", "miras.analysis.ablate.ablation.ablate",
        "miras.analysis.describe.presets_table", "miras.analysis.describe.presets_markdown",
        "miras.analysis.refusals.tables", "miras.analysis.refusals.markdown",
        "miras.data.check_text",
    ):  # fmt: skip
        monkeypatch.setattr(name, stop)
    # The package has a function of this name, too.
    module = importlib.import_module("miras.analysis.ablate.make_grid")
    monkeypatch.setattr(module, "make_grid", stop)

    def run(argv: list[str]) -> int:
        try:
            return main(argv)
        except Done:
            return 0

    return run


def told(run, argv: list[str]) -> int:
    """Runs a command that must not end in a traceback, and in one line where it fails."""
    errors = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    output = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        code = run(argv)
    lines = errors.buffer.getvalue().decode().splitlines()
    assert code in (0, 1, 2)
    if code:
        assert lines
        assert lines[-1].startswith("miras: ")
        assert len(lines[-1]) < 2000, lines[-1][:300]
    return code


@fuzz(100)
@given(argv=command_lines())
def test_any_command_line(argv, checked_only):
    told(checked_only, argv)


@fuzz(100)
@given(field=st.sampled_from(FIELDS), value=VALUES)
def test_any_value_of_any_field(field, value, checked_only):
    told(checked_only, ["train", "yaad", f"{field}={value}"])


LEAVES = st.one_of(
    st.sampled_from([None, True, -1, 0, 1e308, 10**400, "", "\0", "mlp", [], {}, float("nan")]),
    st.text(max_size=4),
)
JSON = st.recursive(
    LEAVES, lambda x: st.one_of(st.lists(x, max_size=2), st.dictionaries(st.text(max_size=3), x))
)
BROKEN = [
    "",
    "{",
    "[" * 9000,
    "9" * 5000,
    '{"data":{}}',
    '{"a":1e999}',
    "\udcff",
    "null",
    "[]",
    "\0",
]


@fuzz(60)
@given(path=st.sampled_from(FIELDS), value=JSON)
def test_any_value_in_a_runs_config(path, value, here, checked_only):
    """The config of a run as it is kept, with one value replaced."""
    config = to_dict(RunConfig(model=preset("yaad")))
    *above, last = path.split(".")
    place = config
    for name in above:
        place = place[name]
    place[last] = value
    run = here / "run"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text(json.dumps(config))
    told(checked_only, ["train", "yaad", "--out", str(run)])
    assert told(checked_only, ["eval", str(run)]) == 2  # it has no checkpoint


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("command", ["train", "eval", "generate", "inspect"])
def test_a_config_that_is_none(text, command, tmp_path, checked_only):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    given = {"train": ["train", "--out", str(tmp_path)], "inspect": ["inspect", "--text", "x"]}
    argv = given.get(command, [command])
    assert told(checked_only, [*argv, *([] if command == "train" else [str(tmp_path)])]) == 2


@fuzz(40)
@given(lines=st.lists(st.one_of(st.sampled_from(BROKEN), JSON.map(json.dumps)), max_size=4))
def test_any_metrics(lines, here):
    text = "\n".join(['{"step": 1}', *lines, '{"step": 2}', '{"step": "3"}', '{"step": 2.5}'])
    (here / "metrics.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert {1, 2} <= {line["step"] for line in read_metrics(here / "metrics.jsonl")}


@fuzz(50)
@given(names=st.lists(st.text("0123456789²١-_ae", min_size=1, max_size=8), max_size=4))
def test_any_names_of_checkpoints(names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in names:
        (folder / name).mkdir(exist_ok=True)
    assert set(map(str, saved_steps(folder))) <= set(names) | {n.lstrip("0") or "0" for n in names}


@fuzz(100)
@given(data=st.data())
def test_any_bytes_of_a_session(data, here):
    """A small file of the format, with bytes replaced and cut."""
    header = {"format": "miras session 3", "tokens": 1, "rows": 1, "model": "m", "config": {}}
    header |= {
        data.draw(st.sampled_from([*header, "notes", "digest", "reserved"])): data.draw(JSON)
    }
    content = bytearray(save({"logits": np.zeros(2, "f")}, {"miras": json.dumps(header)}))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = here / "a.session"
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([None, 4, 8, 60]))]))
    with pytest.raises(ConfigError) as error:
        load_notes(path)
    assert len(str(error.value)) < 2000
