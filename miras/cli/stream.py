"""The command `miras stream`: reads a file of any length with a run's model."""

import argparse
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from miras.cli.options import add_run_folder
from miras.cli.runs import load_run

if TYPE_CHECKING:
    from rich.table import Table

    from miras.analysis.stream.read import Bucket, StreamResult


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "stream",
        help="read a file of any length in constant memory",
        description="Read a file of any length as one text with a run's model, in constant memory, "
        "and print the loss and the health of the memories by position.",
    )
    add_run_folder(parser)
    parser.add_argument("file", metavar="FILE", help="the text, in any file format of --data")
    parser.add_argument(
        "--session",
        metavar="FILE",
        help="continue from the state in this file, if it exists, and save the state to it while "
        "reading; the same command resumes after an interrupt. `miras generate` takes the file too",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from miras.analysis.stream.read import read_stream
    from miras.analysis.stream.session_saver import SessionSaver
    from miras.analysis.stream.token_stream import TokenStream
    from miras.data import check_text
    from miras.data.text.sources import one_file
    from miras.data.text.splitting import text_blocks
    from miras.runtime import signals

    path = _check(args.file, args.session)
    run = load_run(args.folder)
    check_text(run.config.data, "streaming")
    file = one_file(path, run.config.data.field)
    saver = SessionSaver(args.session, run.model)
    session, position = saver.session, saver.position
    stream = TokenStream(
        run.tokenizer, text_blocks(file), starts_document=session is None, position=position
    )
    start = 0 if session is None else session.tokens
    size, console = path.stat().st_size, Console()

    text = "{task.completed:,.0f} of {task.total:,.0f} bytes  {task.fields[loss]}"
    columns = (BarColumn(), TextColumn(text), TimeRemainingColumn())
    with (
        signals.handled(),
        Progress(*columns, console=console, transient=True) as bar,
    ):
        task = bar.add_task("", total=size, loss="")

        def progress(count: int, bucket: "Bucket") -> None:
            loss = f"{count:,} tokens  loss {bucket.loss:.3f}"
            bar.update(task, completed=stream.offset, loss=loss)

        def checkpoint(result: "StreamResult") -> None:
            count = result.session.tokens
            reached = stream.position(count - start, result.buckets)
            resume = saver.after_piece(result.session, reached)
            signals.check(f" after {count:,} tokens{resume}")

        result = read_stream(
            run.model,
            stream.tokens(),
            run.tokenizer.byte_lengths,
            session=session,
            buckets=position.buckets if position else (),
            progress=progress,
            checkpoint=checkpoint,
        )
    saver.at_end(result.session, stream.last)
    for table in tables(result.buckets):
        console.print(table)
    return 0


def _check(name: str, session: str | None) -> pathlib.Path:
    from miras.config import require
    from miras.models.session import check_session_file
    from miras.runtime.files import expand_home

    path = expand_home(name)
    require(path.is_file(), f"{name} is not a file: give a file with text.")
    require(path.stat().st_size > 0, f"{name} is empty: give a file with at least one byte.")
    if session is not None:
        check_session_file(session)
    return path


def tables(buckets: list["Bucket"]) -> Iterator["Table"]:
    """Tables by position of the loss, and of the memories' health and gates (means over layers)."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from miras.layers import Health

    def positions(*titles: str) -> Table:
        rows = Table(box=SIMPLE_HEAD, pad_edge=False)
        for n, title in enumerate(("positions", *titles)):
            rows.add_column(title, justify="right", no_wrap=n == 0)
        return rows

    spans = [f"{x.first:,}-{x.first + x.targets - 1:,}" for x in buckets]
    losses = positions("tokens", "loss", "bits/byte")
    for span, bucket in zip(spans, buckets):
        measures = f"{bucket.loss:.4f}", f"{bucket.bits_per_byte:.4f}"
        losses.add_row(span, f"{bucket.targets:,}", *measures)
    yield losses

    names = list(dict.fromkeys(name for bucket in buckets for name in bucket.health))
    of_memories = [name for name in names if name in Health._fields]
    for some in (of_memories, [name for name in names if name not in of_memories]):
        means = positions(*(name.replace("_", " ") for name in some))
        for span, bucket in zip(spans, buckets):
            means.add_row(span, *(f"{bucket.mean(name):.4g}" for name in some))
        if some:
            yield means
