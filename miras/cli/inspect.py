"""The command `miras inspect`: writes a page with a run's memories at each token of a text."""

import argparse
import os
import pathlib
from typing import TYPE_CHECKING, Any

from miras.cli.options import add_run_folder
from miras.cli.output import print_line
from miras.cli.runs import load_run
from miras.config import require
from miras.errors import ConfigError
from miras.runtime.paths import local_path

if TYPE_CHECKING:
    from miras.data import Tokenizer

LIMIT = 2048


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "inspect",
        help="write a page that shows a run's memories at each token of a text",
        description="Write an HTML page that shows, for each layer, head and token of a text, the "
        "surprise, the gates, the memory's norm, and the memory's error on the token right after "
        "its write and at the end. The page is a single file without external resources.",
        epilog='Example: `miras inspect runs/first --text "import os, import sys"`.',
    )
    add_run_folder(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", metavar="TEXT", help="the text to read")
    source.add_argument("--file", metavar="PATH", help="a file with the text")
    parser.add_argument(
        "--out", metavar="PAGE.html", help="file to write (default: RUN/inspect.html)"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=LIMIT,
        metavar="N",
        help=f"maximum number of tokens on the page (default: {LIMIT})",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from miras.analysis.inspect.page import Heading, page
    from miras.analysis.inspect.token_text import visible_tokens
    from miras.analysis.inspect.trace import check_memories, trace
    from miras.data import check_language_model
    from miras.runtime.files import check_target

    require(args.limit >= 1, f"--limit {args.limit} must be at least 1.")
    require(args.text != "", "the text is empty: give one with --text or --file.")
    out = local_path(args.out or os.path.join(args.folder, "inspect.html"))
    require(
        not os.path.isdir(out),
        f"{out} is a folder: give the name of a file, such as {out}/page.html.",
    )
    check_target(out)
    run = load_run(args.folder)
    check_language_model(run.config.data, "inspecting")
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
    content = page(heading, found, visible_tokens(run.tokenizer, ids))
    _write(out, content)
    size = f"{len(content.encode()) / 1e3:,.0f} kB"
    print_line(console, f"written: {out} ({size}), open it in a browser")
    return 0


def _content(path: str, field: str) -> bytes:
    from miras.data.text.sources import one_file
    from miras.data.text.splitting import text_blocks

    return b"".join(text_blocks(one_file(path, field)))


def _tokens(tokenizer: "Tokenizer", text: bytes, vocab: int, limit: int) -> list[int]:
    """The document-start id and the ids of the text."""
    ids = [int(i) for i in tokenizer.encode(text)]
    require(bool(ids), "the run's tokenizer encodes this text to no tokens: give another text.")
    foreign = [i for i in ids if not 0 <= i < vocab]
    require(
        not foreign,
        f"the text has token {foreign[0] if foreign else None}, outside the model's vocabulary of "
        f"{vocab}: give a text without it, or a run with this tokenizer's vocabulary.",
    )
    require(
        len(ids) <= limit,
        f"the text has {len(ids):,} tokens, more than the limit of {limit:,}: give a shorter text, "
        f"or --limit {len(ids)}.",
    )
    return [tokenizer.bos_id, *ids]


def _write(out: pathlib.Path, content: str) -> None:
    from miras.runtime.files import write_atomically

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, content)
    except OSError as error:
        raise ConfigError(
            f"cannot write {out} ({error.strerror or error}): free space or make it writable, or "
            "give another page with --out."
        ) from error
