"""A session whose header or tensors are not what was written is refused in one sentence."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.flax import save

from miras.errors import ConfigError
from miras.models import Session, load_session, save_session
from miras.models.session import _digest, load_notes
from tests.models.test_language_model import build

FIELDS = ("format", "model", "config", "parameters", "tokens", "rows", "reserved", "notes")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([-1, 0, 2**63, 10**30, [], {}]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
SHAPES = st.lists(st.integers(0, 3), max_size=5).map(tuple)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model with memory, window and attention to all; a session's path, header and tensors."""
    model = build("yaad_h", "pattern=M A S", "layers=3", "attention.window=5")
    path = tmp_path_factory.mktemp("sessions") / "whole"
    logits = jnp.zeros((1, model.config.vocab))
    save_session(path, model, Session(model.init_state(1), logits, 0), {"place": 3})
    assert load_notes(path) == {"place": 3}
    with safe_open(path, framework="flax") as file:
        header = json.loads(file.metadata()["miras"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return model, path.with_name("forged"), header, tensors


def forged(path, header, tensors):
    """A file with a digest that fits what is in it."""
    header = {name: value for name, value in header.items() if name != "digest"}
    header["digest"] = _digest(header, tensors)
    path.write_bytes(save(tensors, {"miras": json.dumps(header)}))


def check(whole, header, tensors):
    model, path, *_ = whole
    forged(path, header, tensors)
    session, told = None, ""
    try:
        session = load_session(path, model)
    except ConfigError as error:
        told = str(error)
    assert "\n" not in told
    assert len(told) < 600
    if session is not None:  # what was changed is of the same kind as before
        assert isinstance(session.tokens, int)
        assert session.logits.shape == (1, model.config.vocab)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(field=st.sampled_from(FIELDS), value=VALUES)
def test_forged_headers(whole, field, value):
    _, _, header, tensors = whole
    check(whole, header | {field: value}, tensors)


@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(data=st.data(), shape=SHAPES, dtype=st.sampled_from([np.float32, np.int32, np.bool_]))
def test_forged_tensors(whole, data, shape, dtype):
    _, _, header, tensors = whole
    name = data.draw(st.sampled_from(sorted(tensors)))
    check(whole, header, tensors | {name: jnp.zeros(shape, dtype)})
    check(whole, header, {other: leaf for other, leaf in tensors.items() if other != name})


@pytest.mark.parametrize("text", ["[]", "3", "null", "{", "[" * 10_000, "1" * 5_000, "\ud800"])
def test_headers_that_are_no_mapping(whole, text):
    model, path, _, tensors = whole
    path.write_bytes(save(tensors, {"miras": text.encode("utf-8", "replace").decode()}))
    with pytest.raises(ConfigError, match="truncated or damaged"):
        load_session(path, model)


def test_a_session_of_the_format_before_with_forged_fields(whole):
    _, _, header, tensors = whole
    old = {k: v for k, v in header.items() if k not in ("config", "parameters", "notes")}
    for field, value in (("tokens", "3"), ("rows", None), ("reserved", 1), ("model", [])):
        check(whole, old | {"format": "miras session 2", field: value}, tensors)
        with pytest.raises(ConfigError, match=f"its {field} is"):
            load_session(whole[1], whole[0])
