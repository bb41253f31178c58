"""`miras stream`: reads a file of any length through a run's model and says how it fared."""

import argparse
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from miras.analysis.stream.read import Bucket, Reading
    from miras.train import Run


def add_parser(commands, load: Callable[[str], "Run"]) -> None:
    """Make the command known.

    Args:
        commands: where parsers of commands are added.
        load: reads a run from its folder.
    """
    parser = commands.add_parser(
        "stream",
        help="read a file of any length in constant memory",
        description="Read a file through a run's model as one text, whatever its length, in "
        "constant memory; print the loss and the memories' health by position.",
    )
    parser.add_argument("folder", metavar="RUN", help="folder of the run")
    parser.add_argument("file", metavar="FILE", help="the text, in any form that --data takes")
    parser.add_argument(
        "--session",
        metavar="FILE",
        help="go on from a saved state, and save it as the text is read, as `miras generate` does: "
        "a reading that was stopped goes on with the same command",
    )
    parser.set_defaults(run=lambda args: _run(args, load))


def _run(args: argparse.Namespace, load: Callable[[str], "Run"]) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from miras.analysis.stream.place import Reader
    from miras.analysis.stream.read import read
    from miras.analysis.stream.saving import Saving
    from miras.data import check_text
    from miras.data.text.sources import one_file
    from miras.data.text.splitting import text_blocks
    from miras.runtime import signals

    path = _check(args.file, args.session)
    run = load(args.folder)
    check_text(run.config.data, "streaming")
    file = one_file(path, run.config.data.field)
    saving = Saving(args.session, run.model)
    session, place = saving.session, saving.place
    reader = Reader(run.tokenizer, text_blocks(file), fresh=session is None, place=place)
    start = 0 if session is None else session.tokens
    size, console = path.stat().st_size, Console()

    told = "{task.completed:,.0f} of {task.total:,.0f} bytes  {task.fields[loss]}"
    columns = (BarColumn(), TextColumn(told), TimeRemainingColumn())
    with (
        signals.handled(),
        Progress(*columns, console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=size, loss="")

        def tell(count: int, bucket: "Bucket") -> None:
            loss = f"{count:,} tokens  loss {bucket.loss:.3f}"
            progress.update(task, completed=reader.offset, loss=loss)

        def keep(now: "Reading") -> None:
            count = now.session.tokens
            where = saving.after_piece(now.session, reader.place(count - start, now.buckets))
            signals.check(f" after {count:,} tokens{where}")

        found = read(
            run.model,
            reader.tokens(),
            run.tokenizer.byte_lengths,
            session=session,
            buckets=place.buckets if place else (),
            tell=tell,
            keep=keep,
        )
    saving.at_end(found.session, reader.last)
    for table in tables(found.buckets):
        console.print(table)
    return 0


def _check(name: str, session: str | None) -> pathlib.Path:
    from miras.config import require
    from miras.models.session import check_session_file
    from miras.runtime.files import expanded

    path = expanded(name)
    require(path.is_file(), f"{name} is no file: give a text to read.")
    require(path.stat().st_size > 0, f"{name} is empty: give a text with at least one byte.")
    if session is not None:
        check_session_file(session)
    return path


def tables(buckets: list["Bucket"]) -> Iterator["Table"]:
    """The loss by position, and the memories' health and gates, means over layers."""
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
