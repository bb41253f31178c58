"""Matched rates: what a swap does to `lr` and `max_lr`, and where matching declines."""

import pytest

import miras
from miras.analysis.strength import matches
from miras.analysis.strength.swap import settle
from miras.errors import ConfigError

YAAD = miras.override(miras.preset("yaad"), "width=16", "heads=2", "chunk=16")
D = 8


def _strength(config):
    return miras.strength(config.rule, D).value


@pytest.fixture(scope="module")
def swapped():
    return miras.override(YAAD, "bias=l2", "algorithm=momentum")


def test_the_matched_rate_writes_as_strongly(swapped):
    found = miras.match_strength(swapped, YAAD)
    lr, max_lr = found.rule.algorithm.lr, found.rule.algorithm.max_lr
    assert lr < 0.01  # momentum sums ten steps, and the default is 0.1
    assert _strength(found) == pytest.approx(_strength(YAAD), rel=0.01)
    assert max_lr / lr == pytest.approx(50, rel=0.01)
    assert miras.override(found, "algorithm.max_lr=1.0", "algorithm.lr=0.1") == swapped
    assert miras.match_strength(YAAD, YAAD) is YAAD


def test_the_rate_of_a_preset_is_found_again():
    moved = miras.override(YAAD, "algorithm.lr=0.3")
    assert miras.match_strength(moved, YAAD).rule.algorithm.lr == pytest.approx(0.01, rel=0.01)
    assert miras.match_strength(YAAD, _strength(YAAD)).rule.algorithm.lr == pytest.approx(
        0.01, rel=0.01
    )


def test_a_part_that_mutes_the_memory_keeps_its_rate():
    muted = miras.override(YAAD, "retention=kl", "retention.link_every=chunk")
    (match,) = matches(muted, YAAD)
    assert "raise retention.scale" in str(match.declined)
    assert "stays" in match.line
    assert miras.match_strength(muted, YAAD) == muted
    with pytest.raises(ConfigError, match=r"out of reach.*raise retention\.scale"):
        miras.match_strength(muted, 0.5)


def test_steps_of_a_set_length_keep_their_rate():
    rule = miras.Rule(
        memory=YAAD.rule.memory,
        algorithm=miras.optim.Muon(every="chunk", lr_at="gradient"),
        read="snapshot",
    )
    flat = miras.override(YAAD, f"rule={miras.to_json(rule)}")
    (match,) = matches(flat, YAAD)
    assert "same length at any lr" in str(match.declined)
    with pytest.raises(ConfigError, match="not a matter of its lr"):
        miras.match_strength(flat, 0.05)


def test_without_a_norm_strength_is_at_most_one_over_the_chunk():
    matrix = miras.override(YAAD, "memory=matrix", "bias=l2", "chunk=64")
    (match,) = matches(matrix, YAAD)
    assert match.declined is None
    assert match.target == 1 / 64
    assert "1 / chunk" in match.line
    online = miras.override(matrix, "exact=true")
    assert next(matches(online, YAAD)).target == pytest.approx(_strength(YAAD), rel=1e-6)


@pytest.mark.parametrize(
    ("words", "rates", "expected"),
    [
        (["algorithm=gd"], "matched", (0.01, 0.5)),  # no swap
        (["bias.delta=1.0", "width=32"], "matched", (0.01, 0.5)),
        (["algorithm.lr=0.02", "bias=l2"], "matched", (0.02, 0.5)),  # the user's
        (["algorithm=momentum", "algorithm.lr=0.02"], "matched", (0.02, 1.0)),
        (['algorithm={"kind": "momentum", "lr": 0.02}'], "matched", (0.02, 1.0)),
        (['algorithm={"kind": "gd", "lr": 0.02, "max_lr": 0.3}'], "matched", (0.02, 0.3)),
        (["algorithm.lr=0.02", "algorithm=gd", "bias=l2"], "matched", (0.02, 0.5)),  # no swap
        (["algorithm=momentum", "algorithm.lr=0.02", "algorithm=momentum"], "raw", (0.02, 1.0)),
        (["algorithm=momentum"], "raw", (0.01, 0.5)),
        (["algorithm=momentum", "algorithm.max_lr=0.7"], "raw", (0.01, 0.7)),
        (["algorithm=momentum"], "default", (0.1, 1.0)),
        (["bias=lp"], "raw", (0.01, 0.5)),
        (["bias=lp"], "default", (0.01, 0.5)),
    ],
)
def test_rates_that_need_no_probe(words, rates, expected, monkeypatch):
    monkeypatch.setattr("miras.analysis.strength.swap.matches", None)
    found = settle(miras.override(YAAD, *words), YAAD, words, rates).rule.algorithm
    assert (found.lr, found.max_lr) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["bias=l2", "algorithm=momentum"],
        ["bias=l2", 'algorithm={"kind": "momentum"}'],
        ["bias=l2", "algorithm.lr=0.02", "algorithm=momentum"],  # which replaces the rate
    ],
)
def test_a_swap_is_matched_and_the_line_says_so(words, swapped, caplog):
    with caplog.at_level("INFO", "miras.analysis.strength"):
        found = settle(miras.override(YAAD, *words), YAAD, words)
    assert found == miras.match_strength(swapped, YAAD)
    assert "lr 0.1 -> 0.00" in caplog.text
    assert "strength 0.0" in caplog.text
    bounded = miras.override(swapped, "algorithm.max_lr=0.25")
    bound = settle(bounded, YAAD, [*words, "algorithm.max_lr=0.25"]).rule.algorithm
    assert (bound.lr, bound.max_lr) == (found.rule.algorithm.lr, 0.25)


def test_a_resumed_run_keeps_its_rates_without_a_probe(swapped, monkeypatch):
    monkeypatch.setattr("miras.analysis.strength.swap.matches", None)
    saved = miras.override(swapped, "algorithm.max_lr=0.2", "algorithm.lr=0.004")
    words = ["bias=l2", "algorithm=momentum"]
    assert settle(swapped, YAAD, words, saved=saved) == saved
    with pytest.raises(TypeError):  # another model is probed
        settle(swapped, YAAD, words, saved=YAAD)


def test_a_strength_takes_the_place_of_the_base(swapped):
    found = settle(swapped, YAAD, [], target=0.1)
    assert _strength(found) == pytest.approx(0.1, rel=0.01)
    with pytest.raises(ConfigError, match=r"strength=1\.5 must be in"):
        settle(swapped, YAAD, [], target=1.5)


def test_rules_of_mixers_inside_a_mixer_are_matched():
    """Those of their own; mixers of the block's rule count once."""
    mixer = 'M.mixer={"kind": "parallel", "of": ["memory", "mac", "titans_lmm"]}'
    words = [mixer, "heads=4", "width=32", "architecture.of.2.rule.algorithm=gd"]
    config = miras.override(YAAD, *words)
    found = settle(config, YAAD, words)
    assert found.rule == config.rule
    (match,) = matches(config, miras.override(YAAD, *words[:3]))
    assert match.path == "architecture.of.2.rule"
    assert match.declined is None
    algorithm = found.architecture.of[2].rule.algorithm
    assert (algorithm.lr, algorithm.max_lr) == (match.lr, match.max_lr)
    assert match.lr != match.own


def test_a_rate_given_inside_a_mixer_stays():
    rule = '{"rule": {"memory": "mlp", "algorithm": {"kind": "gd", "lr": 0.02}}}'
    mixer = f'{{"kind": "parallel", "combine": "heads", "of": ["memory", {rule}]}}'
    words = [f"M.mixer={mixer}", "width=32", "heads=4"]
    found = settle(miras.override(YAAD, *words), YAAD, words, target=0.05)
    assert found.architecture.of[1].rule.algorithm.lr == 0.02
    assert _strength(found) == pytest.approx(0.05, rel=0.01)


def test_a_swap_inside_a_block_is_matched_to_that_block():
    words = ["blocks.N=titans_lmm", "N.algorithm=gd", "N.heads=2", "pattern=M N", "layers=2"]
    base = miras.override(YAAD, words[0], *words[3:])
    found = settle(miras.override(YAAD, *words), YAAD, words)
    assert found.rule == YAAD.rule
    assert _strength(found.block("N")) == pytest.approx(_strength(base.block("N")), rel=0.01)
