"""`miras generate`: continue a text with a run's model, at once or over many calls of a session."""

import argparse
import codecs
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miras.models import Session, Step
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
        "last one ended, with the new prompt behind all that was read and written so far.",
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
    from miras.data import check_text
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
    session = _read_prompt(run, prompt, args.session)
    state, logits, count = session
    new = []

    def tokens() -> Iterator["Step"]:
        nonlocal state, logits
        for step in steps(run.model, logits, state, args.length, how):
            state, logits = step.state, step.logits
            new.append(int(step.token[0]))
            yield step

    _print(run, prompt, tokens())
    if args.session is not None:
        save_session(args.session, run.model, Session(state, logits, count + len(new)))
    return 0


def _read_prompt(run: "Run", prompt: bytes, path: str | None) -> "Session":
    """The state behind the prompt: of a new text, or of one that a session holds."""
    import jax.numpy as jnp

    from miras.models import Session, prefill
    from miras.models.session import resumed

    ids = jnp.asarray(run.tokenizer.encode(prompt))
    session = resumed(path, run.model)
    if session is not None:
        if not len(ids):
            return session
        logits, state = prefill(run.model, ids[None], session.state)
        return Session(state, logits, session.tokens + len(ids))
    ids = jnp.concatenate([jnp.asarray([run.tokenizer.bos_id]), ids])
    logits, state = prefill(run.model, ids[None])
    return Session(state, logits, len(ids))


def _print(run: "Run", prompt: bytes, tokens: Iterator["Step"]) -> None:
    """The text as it comes, in whole characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    print(prompt.decode("utf-8", "replace"), end="", flush=True)
    ids = list(map(int, run.tokenizer.encode(prompt)))
    shown = len(run.tokenizer.decode_bytes(ids))  # some tokenizers drop a leading space
    for step in tokens:
        ids.append(int(step.token[0]))
        text = run.tokenizer.decode_bytes(ids)
        print(decoder.decode(text[shown:]), end="", flush=True)
        shown = len(text)
    print(decoder.decode(b"", final=True))
