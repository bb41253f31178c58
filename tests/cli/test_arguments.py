"""Arguments that are not known: the hint first, then at most a dozen choices."""

import re

import pytest

import miras
from miras.cli.main import main
from miras.config.choices import MOST, nearest, shown, unknown
from miras.config.registry import Registry

COMMANDS = (
    "train", "eval", "presets", "legality", "describe", "generate", "stream", "match", "ablate",
    "strength", "staleness", "inspect", "profile", "runs", "compare", "recipes", "launch",
)  # fmt: skip


def listed(told: str) -> list[str]:
    (names,) = re.findall(r"[tT]he legal ones are (.*?)(?: and \d+ more.*)?\.$", told.strip())
    return names.split(", ")


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["trian"], "unknown command 'trian': did you mean `miras train`?"),
        (["GENERATE"], "did you mean `miras generate`?"),
        (["train", "--steps", "20"], "unknown option '--steps': write steps=20."),
        (["train", "yaad", "--steps=20"], "unknown option '--steps': write steps=20."),
        (["train", "--learning-rate", "0.1"], "write learning_rate=0.1."),
        (["describe", "--width"], "write width=VALUE."),
        (["train", "--stepps", "20"], "did you mean steps=20?"),
        (["train", "--outt", "x"], "did you mean --out?"),
        (["train", "steps", "=", "20"], "write steps=20 without spaces."),
        (["train", "steps=", "20"], "write steps=20 without spaces."),
        (["train", "yaad", "steps", "=20"], "write steps=20 without spaces."),
        (["ablate", "yaad", "steps", "=", "20"], "write steps=20 without spaces."),
        (["train", "widht=64"], "unknown key 'widht': did you mean 'width'?"),
        (["train", "yad"], "unknown preset 'yad': did you mean 'yaad'?"),
        (["describe", "memory=mpl"], "unknown memory 'mpl': did you mean 'mlp'?"),
        (["describe", "memory.norm=layr"], "did you mean 'layer'?"),
        (["generate", "runs/x", "--lenght", "3"], "did you mean --length?"),
        (["generate", "runs/x", "temperature=0.5"], "write --temperature 0.5."),
        (["--halp"], "did you mean '--help'?"),
    ],
)
def test_the_hint_stands_first_and_the_choices_are_few(argv, hint, refused):
    told = refused(*argv)
    assert hint in told
    if "legal ones" in told:
        assert told.index(hint) < told.index("legal ones")
        assert len(listed(told)) <= MOST


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_of_an_unknown_option(command, refused):
    folder = [] if command in ("train", "presets", "recipes", "legality", "describe") else ["here"]
    told = refused(command, *folder, "--plugim", "x")
    assert "did you mean --plugin?" in told
    assert len(listed(told)) <= MOST


def test_few_are_listed_whole_and_many_to_a_dozen_with_the_nearest_first():
    few = str(unknown("bias", "hubr", ["dot", "l2", "huber"]))
    assert few == "unknown bias 'hubr': did you mean 'huber'? The legal ones are huber, dot, l2."
    many = str(unknown("part", "n17x", [f"n{i}" for i in range(40)], see="`here`"))
    assert listed(many)[0] == "n17"
    assert len(listed(many)) == MOST
    assert many.endswith("and 28 more, see `here`.")
    assert str(unknown("part", "x", [])) == "unknown part 'x': there are none."
    assert "did you mean" not in str(unknown("part", "qqq", ["abc"]))


@pytest.mark.parametrize(
    "registry",
    [
        miras.bias.Bias.registry,
        miras.memory.Memory.registry,
        miras.optim.Algorithm.registry,
        miras.retention.Retention.registry,
        miras.tasks.Task.registry,
    ],
    ids=lambda registry: registry.axis,
)
def test_every_member_is_found_by_a_slip_of_the_pen(registry: Registry):
    for kind in registry.names():
        if len(kind) > 4:
            with pytest.raises(miras.ConfigError, match=f"did you mean '{kind}'"):
                registry.get(_swapped(kind))


def _swapped(kind: str) -> str:
    """The name with two neighbouring letters swapped, the first from the third on that differ."""
    n = next(n for n in range(2, len(kind)) if kind[n] != kind[n + 1])
    return kind[:n] + kind[n + 1] + kind[n] + kind[n + 2 :]


def test_case_and_dashes_do_not_matter():
    assert nearest("--STEPS", ["--seed", "--steps"]) == ["--steps"]
    assert nearest("", ["a"]) == []


@pytest.mark.parametrize(
    "value", [10**5000, "x" * 10**6, [[1] * 1000] * 1000], ids=["digits", "text", "lists"]
)
def test_a_long_value_is_cut(value):
    assert len(shown(value)) < 300


def test_nothing_is_trained_by_a_hint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for argv in (["train", "--steps", "20"], ["train", "steps", "=", "20"]):
        assert main(argv) == 2
    assert not list(tmp_path.iterdir())


def test_a_text_may_begin_with_a_tilde(refused):
    told = refused("generate", "no-run-here", "--prompt", "~hello")
    assert "no-run-here is not the folder of a run" in told
