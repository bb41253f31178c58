"""Processes that do not run the same thing: the error of process 1 of two names both values.

That real processes end with these errors is in test_processes.py.
"""

import json
import re

import pytest

from miras.config import config_hash, override, to_dict
from miras.errors import ConfigError
from miras.runtime import processes
from miras.train.runs import shared_folder
from miras.train.runs.shared_folder import TOKEN, check_agreement, check_seen

POSITION = {"identity": {"corpus": "3f"}, "step": 0}


@pytest.fixture
def two(monkeypatch):
    """Process 1 of two, in which process 0 says what a function makes of its own texts."""

    def start(of_process_0):
        monkeypatch.setattr(processes, "count", lambda: 2)
        monkeypatch.setattr(processes, "index", lambda: 1)
        monkeypatch.setattr(processes, "gather", lambda own: [of_process_0(own), own])

    return start


def test_processes_that_agree_are_told_nothing(tiny, two):
    two(lambda own: own)
    check_agreement(tiny(), POSITION)


def test_the_configs_that_differ_are_named(tiny, two):
    config = tiny()
    other = override(config, "learning_rate=0.5")
    two(lambda own: json.dumps([config_hash(other), to_dict(other)]))
    words = (
        f"differ in its config (train.learning_rate: 0.5 -> {config.train.learning_rate:g}, process"
        f" 0 -> process 1; config hashes {config_hash(other)} and {config_hash(config)})"
    )
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_agreement(config, POSITION)


@pytest.mark.parametrize("what", ["miras", "source", "jax"])
def test_the_versions_of_code_that_differ_are_named(tiny, two, what):
    own = shared_folder.code_version()
    other = re.sub(rf"({what} )[\w.+-]+", r"\g<1>9.9", own)
    assert other != own
    two(lambda text: text.replace(own, other))
    words = f"differ in the code: {other} in process 0, {own} in process 1: install the same"
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_agreement(tiny(), POSITION)


def test_the_data_that_differ_are_named(tiny, two):
    def of(position):
        return shared_folder._hash(json.dumps(position, sort_keys=True).encode())

    other = {**POSITION, "identity": {"corpus": "77"}}
    two(lambda text: text.replace(of(POSITION), of(other)))
    words = f"differ in the data: {of(other)} in process 0, {of(POSITION)} in process 1: every"
    with pytest.raises(ConfigError, match=words):
        check_agreement(tiny(), POSITION)


@pytest.mark.parametrize("found", [None, "of an earlier run"])
def test_a_folder_that_a_host_does_not_see_is_named(tmp_path, two, found):
    if found is not None:
        (tmp_path / TOKEN).write_text(found + "\n")
    two(lambda own: json.dumps(["a1b2", "host-0"]) if own == "" else "null")
    words = f"{tmp_path} on .* is not the run folder that process 0 sees on host-0: its file .* has"
    words += f" {found!r}, and process 0 wrote 'a1b2': give a folder"
    with pytest.raises(ConfigError, match=words):
        check_seen(tmp_path, limit=0.1)
