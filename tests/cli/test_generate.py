"""`miras generate` prints the text of its ids, whatever the tokenizer and however it is cut."""

import argparse

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import miras
from miras.cli import generate
from miras.data import DataConfig, make_tokenizer
from miras.models import LanguageModel, LanguageModelConfig, Sampling, prefill, sample, steps
from miras.models import generate as generate_ids
from miras.train import RunConfig
from miras.train.load import Run
from tests.data.tokenizers.all_kinds import make

# The decoder itself is tested with all kinds.
KINDS = ("byte", "byte_fallback.json", "unigram.model", "word_piece.json", "fused.json")
VOCAB = 420  # more than any of the tokenizers has
RULE = miras.Rule(memory="matrix", bias="dot", retention="none", algorithm="gd")


@pytest.fixture(scope="module")
def model():
    config = LanguageModelConfig(RULE, vocab=VOCAB, width=8, layers=1, heads=1, chunk=8)
    return LanguageModel(config, nnx.Rngs(0))


@pytest.fixture(scope="module", params=KINDS)
def run(request, model, tmp_path_factory):
    file = make(request.param, tmp_path_factory.mktemp("tokenizers"))
    config = RunConfig(model.config, DataConfig(tokenizer=file))
    return Run(config, model, 1, {}, make_tokenizer(file))


def printed(run, capsys, *argv):
    parser = argparse.ArgumentParser()
    generate.add_parser(parser.add_subparsers())
    args = parser.parse_args(["generate", "run", *map(str, argv)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "load_run", lambda folder: run)
        assert args.run(args) == 0
    return capsys.readouterr().out


def ids_of(run, length, seeds):
    """Those of calls after one another, without a prompt."""
    tokenizer, ids = run.tokenizer, []
    logits, state = prefill(run.model, jnp.asarray([[tokenizer.bos_id]]))
    for seed in seeds:
        how = Sampling(seed=seed, vocab=tokenizer.vocab_size)
        for step in steps(run.model, logits, state, length, how):
            ids.append(int(step.token[0]))
            logits, state = step.logits, step.state
    return ids


def test_the_text_is_that_of_its_ids(run, capsys):
    assert run.tokenizer.vocab_size < VOCAB
    for seed in range(2):
        ids = ids_of(run, 30, [seed])
        text = printed(run, capsys, "--length", 30, "--seed", seed)
        assert text == run.tokenizer.decode(ids) + "\n"


def test_calls_of_a_session_print_one_text(run, capsys, tmp_path):
    session = ("--length", 5, "--session", tmp_path / "a.session")
    parts = [printed(run, capsys, *session, "--seed", seed)[:-1] for seed in range(4)]
    whole = run.tokenizer.decode_bytes(ids_of(run, 5, range(4))).decode("utf-8", "replace")
    text = "".join(parts)
    assert whole.startswith(text)
    assert set(whole[len(text) :]) <= {"\ufffd"}  # a character that the next call completes


def test_ids_that_the_tokenizer_lacks_are_never_taken(model):
    logits = jnp.zeros((1, VOCAB)).at[0, 300].set(50.0)
    for how in ({"temperature": 0}, {}, {"top_k": 3}, {"top_p": 0.5}, {"top_k": VOCAB}):
        taken = sample(jax.random.key(0), logits, Sampling(**how, vocab=257))
        assert int(taken[0]) < 257
    found = generate_ids(model, [[1, 2]], 40, vocab=3)
    assert found.max() < 3
    with pytest.raises(miras.ConfigError, match="vocab=0 must be at least 1"):
        generate_ids(model, [[1, 2]], 4, vocab=0)
