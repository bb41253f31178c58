"""`miras generate`: continue a text with a run's model, at once or over many calls of a session."""

import argparse
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from miras.runtime import signals

if TYPE_CHECKING:
    import numpy as np

    from miras.models import Session
    from miras.train import Run


def add_parser(commands, load: Callable[[str], "Run"]) -> None:
    """Make the command known.

    Args:
        commands: where parsers of commands are added.
        load: reads a run from its folder.
    """
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continue a text with a run's model.",
        epilog="With --session the memories are kept in a file: the same command goes on where the "
        "last one ended, with the new prompt after all that was read and written so far. Bytes of "
        "a character that is not whole are then kept for the next call.",
    )
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="the beginning of the text")
    parser.add_argument(
        "--length", type=int, default=256, metavar="N", help="tokens to add (default: 256)"
    )
    parser.add_argument(
        "--session", metavar="FILE", help="go on from a saved state, and save it at the end"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="0 takes the likeliest (default: 1)"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="only the likeliest tokens of probability P"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another text")
    parser.set_defaults(run=lambda args: _run(args, load))


def _run(args: argparse.Namespace, load: Callable[[str], "Run"]) -> int:
    from miras.data import TextDecoder, check_text
    from miras.models import Sampling, Session, save_session, steps
    from miras.models.decoding import check_length
    from miras.models.session import check_session_file

    how = Sampling(args.temperature, args.top_k, args.top_p, args.seed)
    check_length(args.length)
    if args.session is not None:
        check_session_file(args.session)
    prompt = os.fsencode(args.prompt)  # any bytes, as a file may hold
    run = load(args.folder)
    check_text(run.config.data, "generating")
    now, text = _resumed(args.session, run)
    how = dataclasses.replace(how, vocab=run.tokenizer.vocab_size)
    decoder = TextDecoder(run.tokenizer, text)
    encode = run.tokenizer.encode if now is None else run.tokenizer.encode_next
    ids = encode(prompt)
    now = _read_prompt(run, ids, now)
    print(decoder.feed_text(prompt, ids), end="", flush=True)
    try:
        with signals.handled():
            for step in steps(run.model, now.logits, now.state, args.length, how):
                now = Session(step.state, step.logits, now.tokens + 1)
                print(decoder.feed(step.token), end="", flush=True)
                signals.check()
    finally:  # an interrupt costs nothing either
        whole = args.session is None or not run.tokenizer.local
        left = decoder.finish() if whole else ""
        if args.session is not None:
            save_session(args.session, run.model, now, {"text": decoder.state})
        print(left, flush=True)
    return 0


def _resumed(path: str | None, run: "Run") -> tuple["Session | None", Mapping[str, Any] | None]:
    """The session that a file holds and where its text stands; None where there is none."""
    from miras.data.tokenizers.text_decoder import within_text
    from miras.models.session import load_notes, resumed

    session = resumed(path, run.model)
    if path is None or session is None:
        return None, None
    text = load_notes(path).get("text")
    return session, text if isinstance(text, dict) else within_text()


def _read_prompt(run: "Run", ids: "np.ndarray", session: "Session | None") -> "Session":
    """The state behind the prompt: of a new text, or of one that goes on."""
    import jax.numpy as jnp

    from miras.models import Session, prefill

    tokens = jnp.asarray(ids)
    if session is not None:
        if not len(tokens):
            return session
        logits, state = prefill(run.model, tokens[None], session.state)
        return Session(state, logits, session.tokens + len(tokens))
    tokens = jnp.concatenate([jnp.asarray([run.tokenizer.bos_id]), tokens])
    logits, state = prefill(run.model, tokens[None])
    return Session(state, logits, len(tokens))
