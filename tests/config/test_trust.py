"""Code in a run's folder is run only if this user has trained with it, or says so."""

import json
import stat

import pytest

from miras.cli.main import main
from miras.config import plugins, trust
from miras.errors import ConfigError
from miras.train import load_run, train
from tests.config.test_plugins import forget  # noqa: F401  (a fixture: a process that knows no plugins)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """The user's state folder, in which nothing is."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MIRAS_TRUST_PLUGINS", raising=False)
    return tmp_path / "state" / "miras" / "trusted_plugins.json"


@pytest.fixture
def run(tmp_path):
    """A folder that looks like a run's, with a plugin that leaves a mark."""
    folder = tmp_path / "run"
    (folder / "plugins").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "plugins" / "others.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'mark')!r}).touch()\n"
    )
    return folder


COMMANDS = {
    "eval": ["eval", "RUN"],
    "generate": ["generate", "RUN", "--length", "1"],
    "stream": ["stream", "RUN", "RUN/config.json"],
    "inspect": ["inspect", "RUN", "--text", "a"],
    "staleness": ["staleness", "RUN"],
    "train": ["train", "yaad", "--out", "RUN"],
    "ablate": ["ablate", "yaad", "bias=l2", "--out", "RUN"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_others_code(run, command, refused, tmp_path):
    argv = [word.replace("RUN", str(run)) for word in COMMANDS[command]]
    told = refused(*argv)
    digest = trust.digest((run / "plugins" / "others.py").read_text())
    for word in (f"others.py (sha256 {digest})", "--trust-plugins", "MIRAS_TRUST_PLUGINS=1"):
        assert word in told
    assert not (tmp_path / "mark").exists()


def test_python_does_not_run_others_code(run, tmp_path):
    with pytest.raises(ConfigError, match="trust_plugins=True"):
        load_run(run)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        load_run(run, trust_plugins=True)
    assert (tmp_path / "mark").exists()
    assert "trust_plugins" in train.__kwdefaults__


@pytest.mark.parametrize("how", ["option", "variable", "plugin"])
def test_the_user_may_trust_it(run, how, tmp_path, monkeypatch, capsys):
    argv = ["eval", str(run)]
    if how == "variable":
        monkeypatch.setenv("MIRAS_TRUST_PLUGINS", "1")
    else:
        argv += ["--trust-plugins"] if how == "option" else ["--plugin", f"{run}/plugins/others.py"]
    assert main(argv) == 2
    assert "config.json cannot be read" in capsys.readouterr().err
    assert (tmp_path / "mark").exists()


def test_what_training_keeps_is_recorded(run, state, forget, tmp_path):  # noqa: F811
    plugins.load(run / "plugins" / "others.py")
    kept = tmp_path / "kept"
    plugins.save(kept)
    assert json.loads(state.read_text()) == {
        "sha256": [trust.digest((kept / "others.py").read_text())]
    }
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700
    forget()
    plugins.restore(kept)
    forget()
    (kept / "others.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="have not run before"):
        plugins.restore(kept)
    (kept / "others.py").unlink()
    (kept / "modules.txt").write_text("antigravity\n")
    with pytest.raises(ConfigError, match="module antigravity"):
        plugins.restore(kept)


@pytest.mark.parametrize("spoilt", ["open file", "open folder", "link", "text", "nesting"])
def test_a_record_that_others_could_write_counts_for_nothing(run, state, spoilt, forget):  # noqa: F811
    plugins.load(run / "plugins" / "others.py")
    plugins.save(run / "plugins")
    forget()
    plugins.restore(run / "plugins")
    forget()
    if spoilt == "open file":
        state.chmod(0o666)
    elif spoilt == "open folder":
        state.parent.chmod(0o777)
    elif spoilt == "link":
        state.symlink_to(state.rename(state.with_name("moved")))
    else:
        state.write_text("{" if spoilt == "text" else "[" * 10_000)
    with pytest.raises(ConfigError, match="have not run before"):
        plugins.restore(run / "plugins")


def test_a_record_that_cannot_be_written_is_a_warning(run, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    plugins.load(run / "plugins" / "others.py")
    plugins.save(tmp_path / "kept")
    assert (tmp_path / "kept" / "others.py").exists()
    assert "cannot record" in caplog.text
