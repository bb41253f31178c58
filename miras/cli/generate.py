"""The command `miras generate`: continues a text with a run's model, in one call or a session."""

import argparse
import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from miras.cli.options import add_run_folder, add_seed
from miras.cli.runs import load_run
from miras.runtime import signals

if TYPE_CHECKING:
    import numpy as np

    from miras.models import Session
    from miras.train import Run


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continue a text with a run's model.",
        epilog="With --session, the model's state is saved to a file: the same command continues "
        "where the last one ended, and its prompt follows all that was read and generated before. "
        "Bytes of an incomplete character are then kept for the next call.",
    )
    add_run_folder(parser)
    parser.add_argument("--prompt", default="", metavar="TEXT", help="the text to continue")
    parser.add_argument(
        "--length",
        type=int,
        default=256,
        metavar="N",
        help="number of tokens to generate (default: 256)",
    )
    parser.add_argument(
        "--session",
        metavar="FILE",
        help="continue from the state in this file, if it exists, and save the new state to it",
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="0 takes the most likely token (default: 1)"
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="sample from the K most likely tokens"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="sample from the most likely tokens with total probability P",
    )
    add_seed(parser, "seed of the sampling (default: 0)", default=0)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.data import TextDecoder, check_text
    from miras.models import Sampling, Session, save_session, steps
    from miras.models.decoding import check_length
    from miras.models.session import check_session_file

    sampling = Sampling(args.temperature, args.top_k, args.top_p, args.seed)
    check_length(args.length)
    if args.session is not None:
        check_session_file(args.session)
    prompt = os.fsencode(args.prompt)  # any bytes, as a file may hold
    run = load_run(args.folder)
    check_text(run.config.data, "generating")
    session, text = _resumed(args.session, run)
    sampling = dataclasses.replace(sampling, vocab=run.tokenizer.vocab_size)
    decoder = TextDecoder(run.tokenizer, text)
    encode = run.tokenizer.encode if session is None else run.tokenizer.encode_next
    ids = encode(prompt)
    session = _read_prompt(run, ids, session)
    print(decoder.feed_text(prompt, ids), end="", flush=True)
    try:
        with signals.handled():
            for step in steps(run.model, session.logits, session.state, args.length, sampling):
                session = Session(step.state, step.logits, session.tokens + 1)
                print(decoder.feed(step.token), end="", flush=True)
                signals.check()
    finally:  # also after an interrupt
        ends_here = args.session is None or not run.tokenizer.local
        rest = decoder.finish() if ends_here else ""
        if args.session is not None:
            save_session(args.session, run.model, session, {"text": decoder.state})
        print(rest, flush=True)
    return 0


def _resumed(path: str | None, run: "Run") -> tuple["Session | None", Mapping[str, Any] | None]:
    """The session in a file and the state of its text decoder; None if there is no such file."""
    from miras.data.tokenizers.text_decoder import mid_text_state
    from miras.models.session import load_notes, resumed

    session = resumed(path, run.model)
    if path is None or session is None:
        return None, None
    text = load_notes(path).get("text")
    return session, text if isinstance(text, dict) else mid_text_state()


def _read_prompt(run: "Run", ids: "np.ndarray", session: "Session | None") -> "Session":
    """The session after the prompt, which begins a text or continues the session's."""
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
