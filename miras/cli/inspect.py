"""The command `miras inspect`: a run and a text in, a page out.

What needs jax is imported when the command runs, as in `cli`.
"""

import argparse
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from miras.config import require
from miras.errors import ConfigError
from miras.runtime.files import expanded

if TYPE_CHECKING:
    from miras.data import Tokenizer
    from miras.train import Run

LIMIT = 2048


def add_parser(commands: Any, load: "Callable[[str], Run]") -> None:
    """Add the command to a parser's `add_subparsers()`; `load` reads a run's folder."""
    parser = commands.add_parser(
        "inspect",
        help="show what a run's memories do with a text, token by token, as a page",
        description="An HTML page that shows, by layer and head, over the tokens of a text: "
        "surprise, gates, the memory's norm, and how well it holds each token, when it is written "
        "and at the end. The page is one file and loads nothing.",
        epilog='Example: `miras inspect runs/first --text "import os, import sys"`.',
    )
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", metavar="TEXT", help="the text to read")
    source.add_argument("--file", metavar="PATH", help="a file that holds the text")
    parser.add_argument("--out", metavar="PAGE.html", help="default: RUN/inspect.html")
    parser.add_argument(
        "--limit",
        type=int,
        default=LIMIT,
        metavar="N",
        help=f"most tokens that a page may hold (default: {LIMIT})",
    )
    parser.set_defaults(run=lambda args: _run(args, load))


def _run(args: argparse.Namespace, load: "Callable[[str], Run]") -> int:
    from rich.console import Console

    from miras.analysis.inspect.page import Heading, page
    from miras.analysis.inspect.spelling import spelled
    from miras.analysis.inspect.trace import check_memories, trace
    from miras.runtime.files import check_target

    require(args.limit >= 1, f"--limit {args.limit} must be at least 1.")
    require(args.text != "", "the text is empty: give one with --text or --file.")
    out = expanded(args.out or pathlib.Path(args.folder) / "inspect.html")
    require(
        not os.path.isdir(out), f"{out} is a folder: give the name of a page, as {out}/page.html."
    )
    check_target(out)
    run = load(args.folder)
    check_memories(run.config.model, args.folder)
    field = run.config.data.field
    text = os.fsencode(args.text) if args.file is None else _content(args.file, field)
    require(text != b"", "the text is empty: give one with --text or --file.")
    ids = _tokens(run.tokenizer, text, run.config.model.vocab, args.limit)

    console = Console()
    with console.status("reading") as status:
        found = trace(run.model, ids, lambda n: status.update(f"token {n:,} of {len(ids):,}"))
    name = os.path.basename(os.path.abspath(args.folder))
    heading = Heading(name, run.step, run.config.model)
    content = page(heading, found, spelled(run.tokenizer, ids))
    _write(out, content)
    console.print(
        f"written: {out} ({len(content.encode()) / 1e3:,.0f} kB), open it in a browser",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


def _content(path: str, field: str) -> bytes:
    from miras.data.text.sources import one_file
    from miras.data.text.splitting import text_blocks

    return b"".join(text_blocks(one_file(path, field)))


def _tokens(tokenizer: "Tokenizer", text: bytes, vocab: int, limit: int) -> list[int]:
    """The document start and the text's ids."""
    ids = [int(i) for i in tokenizer.encode(text)]
    require(bool(ids), "the run's tokenizer makes no tokens of this text: give another.")
    foreign = [i for i in ids if not 0 <= i < vocab]
    require(
        not foreign,
        f"the text holds token {foreign[0] if foreign else None}, which the model's vocabulary of "
        f"{vocab} lacks: give a text without it, or a run of this tokenizer's vocabulary.",
    )
    require(
        len(ids) <= limit,
        f"the text has {len(ids):,} tokens, more than the {limit:,} that a page may hold: give a "
        f"shorter one, or --limit {len(ids)}.",
    )
    return [tokenizer.bos_id, *ids]


def _write(out: pathlib.Path, content: str) -> None:
    from miras.runtime.files import write_whole

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, content)
    except OSError as error:
        raise ConfigError(
            f"cannot write {out} ({error.strerror or error}): free space or make it writable, or "
            "give another page with --out."
        ) from error
