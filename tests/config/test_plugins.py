"""Members from outside: plugin files on the command line and in run folders, and entry points."""

import shutil
import sys

import pytest

import miras
from miras.cli.main import main
from miras.config import plugins
from miras.errors import ConfigError, UnknownPartError
from miras.presets import PRESETS

BIAS = '''
import dataclasses
import jax.numpy as jnp
import miras

@miras.bias.register("{name}")
@dataclasses.dataclass(frozen=True)
class Mine(miras.bias.Bias):
    """sum log cosh r."""
    scale: float = 1.0

    def loss(self, pred, target, gates):
        z = (pred - target) / self.scale
        return self.scale**2 * jnp.sum(jnp.logaddexp(z, -z), axis=-1)
'''
TINY = (
    "bias=mine", "bias.scale=0.5", "memory=matrix", "retention=none", "algorithm=gd", "width=16",
    "layers=1", "heads=1", "chunk=8", "remat=false", "sequence=16", "batch=2", "validation=0.2",
    "steps=2", "eval_batches=1", "log_every=1", "checkpoint_every=2",
)  # fmt: skip


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """A process that knows no plugins; calling it forgets again what was loaded."""

    def clean():
        registry = miras.bias.Bias.registry
        own = {k: v for k, v in registry._members.items() if v.__module__.startswith("miras.")}
        monkeypatch.setattr(registry, "_members", own)
        monkeypatch.setattr(registry, "_tried", set())
        monkeypatch.setattr(registry, "_broken", {})
        monkeypatch.setattr(plugins, "_files", {})
        monkeypatch.setattr(plugins, "_modules", [])
        for name in [name for name in sys.modules if name.startswith("miras_plugin_")]:
            del sys.modules[name]

    clean()
    return clean


@pytest.fixture
def mine(tmp_path):
    """A plugin file that registers the bias "mine"."""
    path = tmp_path / "mine.py"
    path.write_text(BIAS.format(name="mine"))
    return path


@pytest.mark.slow
def test_a_run_remembers_its_plugin(mine, tmp_path, forget, monkeypatch, capsys):
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path / "cache"))
    text, out = tmp_path / "text", tmp_path / "run"
    text.mkdir()
    for i in range(10):
        (text / f"{i}.txt").write_text("the old sea again " * (10 + i))
    argv = ["train", "yaad", *TINY, "--data", str(text), "--out", str(out)]
    assert main([*argv, "--plugin", str(mine)]) == 0
    assert (out / "plugins" / "mine.py").read_text() == mine.read_text()

    mine.rename(tmp_path / "away.py")  # the run's own copy is what counts
    for command in (["eval", str(out), "--batches", "1"], ["generate", str(out), "--length", "2"]):
        forget()
        assert main(command) == 0
    forget()
    capsys.readouterr()
    assert main(argv) == 0
    assert "is finished" in capsys.readouterr().out

    mine.write_text(BIAS.format(name="mine") + "# another text\n")
    forget()
    assert main([*argv, "--plugin", str(mine)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "is not the plugin with which the run was started" in told
    assert "--out" in told

    shutil.rmtree(out / "plugins")
    forget()
    assert main(["eval", str(out)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "unknown bias 'mine'" in told
    assert "--plugin" in told


def test_a_plugin_is_known_to_overrides_presets_and_json(mine):
    with pytest.raises(UnknownPartError, match="unknown bias 'mine'"):
        miras.Rule(bias="mine")
    plugins.load(mine)
    rule = miras.Rule(bias={"kind": "mine", "scale": 0.5})
    assert "mine" in miras.bias.Bias.registry.names()
    assert miras.from_dict(miras.Rule, miras.to_dict(rule)) == rule
    model = miras.override(miras.preset("yaad"), "bias=mine", "bias.scale=0.5")
    assert model.rule.bias == rule.bias


def test_a_plugin_is_run_once_and_again_when_its_text_changes(mine):
    plugins.load(mine)
    first = miras.bias.Bias.registry.get("mine")
    plugins.load(mine)
    assert miras.bias.Bias.registry.get("mine") is first
    mine.write_text(mine.read_text() + "# another text\n")
    plugins.load(mine)
    assert miras.bias.Bias.registry.get("mine") is not first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", ["SyntaxError", "mine.py"]),
        ("\nraise ValueError('no sea')\n", ["line 2", "ValueError: no sea"]),
        ("import sys\nsys.exit(3)\n", ["line 2", "SystemExit: 3"]),
        ("import no_such_module\n", ["line 1", "no_such_module"]),
        (BIAS.format(name="huber"), ["'huber' is already registered", "choose another name"]),
        (b"\xff\xfe", ["cannot be read", "Python file"]),
        (None, ["mine.py", "cannot be read"]),
    ],
)
def test_a_broken_plugin_answers_in_one_sentence(mine, text, words, capsys):
    if text is None:
        mine.unlink()
    else:
        mine.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["describe", "yaad", "--plugin", str(mine)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("miras: plugin ")
    assert told.count("\n") == 1
    for word in words:
        assert word in told
    assert plugins._files == {}


def test_a_module_is_a_plugin_too(tmp_path, monkeypatch, forget):
    (tmp_path / "module_of_mine.py").write_text(BIAS.format(name="mine"))
    with pytest.raises(ConfigError, match="'module_of_mine' cannot be imported"):
        plugins.load("module_of_mine")
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load("module_of_mine")
    kept = tmp_path / "plugins"
    plugins.save(kept, miras.Rule(bias="mine"))
    assert (kept / "modules.txt").read_text() == "module_of_mine\n"
    forget()
    del sys.modules["module_of_mine"]
    plugins.restore(kept)
    assert miras.Rule(bias="mine").kinds()["bias"] == "mine"
    del sys.modules["module_of_mine"]


def test_nothing_is_kept_where_nothing_is_needed(tmp_path):
    plugins.save(tmp_path / "plugins", miras.Rule())
    assert not (tmp_path / "plugins").exists()
    plugins.restore(tmp_path / "plugins")


PRESET = """
import miras
from miras.presets import register

@register("Mine", "W_t = W_{t-1}", "unpublished")
def my_preset():
    return miras.override(miras.preset("yaad"), "layers=1")
"""


def test_a_plugin_may_add_a_preset(tmp_path, monkeypatch):
    path = tmp_path / "presets.py"
    path.write_text(PRESET)
    monkeypatch.setattr("miras.presets.registry.PRESETS", PRESETS | {})
    plugins.load(path)
    assert miras.preset("my_preset").layers == 1
    path.write_text(PRESET.replace("layers=1", "layers=3"))  # as in a notebook's cell
    plugins.load(path)
    assert miras.preset("my_preset").layers == 3
    path.with_name("others.py").write_text(PRESET)
    with pytest.raises(ConfigError, match="'my_preset' is already registered"):
        plugins.load(path.with_name("others.py"))
    entry = miras.presets.registry.PRESETS["my_preset"]
    assert (entry.paper, entry.source) == ("", "unpublished")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes an importable package with an entry point, as pip leaves it."""

    def make(package: str, name: str, code: str) -> None:
        site = tmp_path / f"site_{package}"
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text("")
        (site / package / "parts.py").write_text(code)
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[miras.bias]\n{name} = {package}.parts\n")
        monkeypatch.syspath_prepend(site)

    yield make
    for module in [m for m in sys.modules if m.startswith("miras_test_")]:
        del sys.modules[module]


def test_an_entry_point_is_found_by_name(install):
    install("miras_test_good", "installed", BIAS.format(name="installed"))
    assert miras.override(miras.preset("yaad"), "bias=installed").rule.bias.kind == "installed"


def test_an_entry_point_is_among_the_names(install, capsys):
    install("miras_test_good", "installed", BIAS.format(name="installed"))
    assert miras.bias.Bias.registry.names()[-1] == "installed"
    assert main(["describe", "yaad", "bias=instaled"]) == 2
    assert "did you mean 'installed'" in capsys.readouterr().err
    assert main(["describe", "yaad", "bias=installed"]) == 0
    assert "installed(scale=1.0)" in capsys.readouterr().out


def test_entry_points_are_not_loaded_for_what_is_known(install):
    install("miras_test_good", "installed", BIAS.format(name="installed"))
    miras.Rule(bias="huber")
    assert "miras_test_good.parts" not in sys.modules


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module\n", "ModuleNotFoundError"),
        ("raise SystemExit(1)\n", "SystemExit"),
        (BIAS.format(name="another"), "registers no bias of this name"),
    ],
)
def test_a_broken_entry_point_hurts_no_other(install, code, reason):
    install("miras_test_good", "installed", BIAS.format(name="installed"))
    install("miras_test_broken", "crooked", code)
    assert miras.Rule(bias="installed").kinds()["bias"] == "installed"
    assert "crooked" not in miras.bias.Bias.registry.names()
    with pytest.raises(UnknownPartError, match=r"'crooked' is not available") as caught:
        miras.Rule(bias="crooked")
    assert reason in str(caught.value)
    assert "'miras_test_broken'" in str(caught.value)
    with pytest.raises(UnknownPartError, match="unknown bias 'no_such'") as caught:
        miras.Rule(bias="no_such")
    assert "Note: the entry point 'crooked'" in str(caught.value)
