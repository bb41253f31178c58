"""The compilation cache: a setting of the command line's own processes alone."""

import sys

import pytest

from miras.runtime import compilation_cache

NAMES = ("JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE", compilation_cache.SWITCH)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """The environment of a new process, without jax."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jax")
    values = {}
    monkeypatch.setattr("os.environ", values := dict(compilation_cache.os.environ))
    return values


def test_it_is_on_by_default_in_the_users_cache(environment, tmp_path):
    compilation_cache.enable()
    folder = environment["JAX_COMPILATION_CACHE_DIR"]
    assert folder == str(compilation_cache.default_folder())
    assert folder.startswith(str(tmp_path / "compiled"))


@pytest.mark.parametrize("value", ["off", "OFF", "0"])
def test_it_can_be_switched_off(environment, value):
    environment[compilation_cache.SWITCH] = value
    compilation_cache.enable()
    assert "JAX_COMPILATION_CACHE_DIR" not in environment


def test_a_folder_of_the_user_stays(environment):
    environment["JAX_COMPILATION_CACHE_DIR"] = "/elsewhere"
    compilation_cache.enable()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"


def test_a_process_that_has_jax_is_left_as_it_is(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", object())
    compilation_cache.enable()
    assert "JAX_COMPILATION_CACHE_DIR" not in environment
