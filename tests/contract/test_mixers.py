"""Every token mixer keeps the contract; so does a user's own, and what breaks it is told."""

import jax.numpy as jnp
import pytest

import miras
from miras.mixers import MixerConfig, TokenMixer
from miras.testing import check_mixer
from tests import selection
from tests.plugin_package.mixer import DecayingMean, Mean

ATTENTION = {"window": 3, "segment": 4, "persistent": 1}
PARALLEL = ("memory", {"kind": "attention", "window": 3})
MIXERS = {
    "memory": {},
    "attention": {"window": 3, "persistent": 1},
    "attention-full": {"window": None},
    "attention-grouped": {"window": 3, "persistent": 1, "kv_heads": 1},
    "mac": {},
    "mag": {},
    "mal": {},
    **{f"parallel-{how}": {"of": PARALLEL, "combine": how} for how in ("sum", "mean", "gate")},
    "parallel-heads": {"of": ("memory", {"kind": "attention", "window": 3}), "combine": "heads"},
    "parallel-rules": {"of": ("gated_deltanet", "memory")},
    "parallel-mac": {
        "of": ("mac", "memory", {"kind": "attention", "window": 2}),
        "combine": "gate",
    },
}


def config_of(name: str) -> MixerConfig:
    """Of MIXERS, around a rule whose programs are small."""
    mixer = {"kind": name.partition("-")[0], **MIXERS[name]}
    return MixerConfig(mixer=mixer, rule={"retention": "l2"}, chunk=4, attention=ATTENTION)


# `tests/models/test_titans.py` cuts, packs and masks the mixers of one memory by default.
QUICK = {"parallel-gate"}


def test_every_built_in_mixer_is_checked():
    own = {
        kind
        for kind in TokenMixer.registry.names()
        if TokenMixer.registry.get(kind).__module__.startswith("miras.")
    }
    elsewhere = {"memory_caching", "log_linear", "tnt", "self_modifying"}  # in tests of their own
    assert own <= {name.partition("-")[0] for name in MIXERS} | elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("name", selection.sampled(MIXERS, QUICK))
def test_a_mixer_keeps_the_contract(name):
    check_mixer(config_of(name))


def test_a_users_mixer_keeps_the_contract():
    check_mixer(DecayingMean())


class Leaking(Mean):
    """Sees the next token."""

    def __call__(self, x, **call):
        y, state, _ = super().__call__(x, **call)
        return y + jnp.roll(x, -1, axis=1), state, None


class Forgetting(Mean):
    """Loses its state between calls."""

    def __call__(self, x, *, state=None, **call):
        return super().__call__(x, state=None, **call)


class Confusing(Mean):
    """Mixes documents."""

    def __call__(self, x, *, segment_ids=None, **call):
        return super().__call__(x, **call)


class Unmasked(Mean):
    """Reads padding."""

    def __call__(self, x, *, mask=None, **call):
        return super().__call__(x, **call)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Leaking, "cut at|later token"),
        (Forgetting, "cut at"),
        (Confusing, "see each other"),
        (Unmasked, "padding"),
    ],
)
def test_a_broken_mixer_is_told(module, message, monkeypatch):
    monkeypatch.setattr("tests.plugin_package.mixer.Mean", module)
    with pytest.raises(AssertionError, match=message):
        check_mixer(DecayingMean())


BAD = {
    '"of": ["memory"]': "parallel.of has 1 mixers: give at least two",
    '"of": ["mac", {"mixer": "memory", "chunk": 48}]': "segments or chunks of 48 and of 64 tokens",
    '"of": ["memery", "mac"]': "unknown block 'memery': did you mean 'memory'",
    '"combine": "product"': "combine='product' is not one of 'sum', 'mean'",
    '"combine": "heads", "of": ["memory", {"heads": 4}]': "cannot be split",
}


@pytest.mark.parametrize("spec", BAD)
def test_mixers_that_do_not_fit_raise_one_sentence(spec):
    with pytest.raises(miras.ConfigError) as told:
        miras.override(miras.preset("yaad"), f'M.mixer={{"kind": "parallel", {spec}}}')
    assert BAD[spec] in str(told.value)
