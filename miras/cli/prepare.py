"""The command `miras prepare`: packs the text of a source into rows of tokens on disk."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from miras.config import require
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.data.prepared.layout import Shard


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "prepare",
        help="pack the text of a source into rows of tokens on disk",
        description="Tokenize the documents of a source once and pack them into rows, which `miras "
        "train --data DIR` then reads in any order. A repeated command continues where it was "
        "stopped.",
        epilog="Examples: `miras prepare my_texts --tokenizer tokenizer.json --sequence 4096 --out "
        "prepared`, `miras train yaad --data prepared tokenizer=prepared/tokenizer.json "
        "sequence=4096`.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="text, as of --data in `miras train`; with --verify alone, none",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the prepared set")
    parser.add_argument(
        "--tokenizer", default="byte", metavar="FILE", help="as data.tokenizer (default: byte)"
    )
    parser.add_argument("--sequence", type=int, metavar="N", help="tokens of a row")
    parser.add_argument(
        "--align",
        type=int,
        default=64,
        metavar="N",
        help="documents start at multiples of this, which the memory's chunk must divide "
        "(default: 64)",
    )
    parser.add_argument(
        "--field", default="text", metavar="NAME", help="field of the text in rows (default: text)"
    )
    parser.add_argument(
        "--validation",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="fraction of the documents that are held out, unless a TFDS set has a validation "
        "split (default: 0.05)",
    )
    parser.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="write the I-th of N parts, from 0 to N - 1, on one of N machines that share DIR",
    )
    parser.add_argument(
        "--shard-bytes",
        type=int,
        default=64 * 2**20,
        metavar="N",
        help="bytes of text of a file, about (default: 64 MiB)",
    )
    parser.add_argument(
        "--processes", type=int, metavar="P", help="processes of this machine (default: its cores)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="read the finished set and check every row"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    require(
        args.source is not None or args.verify,
        "`miras prepare` needs the SOURCE of the text, or --verify to check a finished set.",
    )
    if args.source is not None and not _prepare(args):
        return 0
    if args.verify:
        from miras.data.prepared.verify import verify

        index = verify(args.out)
        shards = [shard for found in index.shards.values() for shard in found]
        print(f"{args.out}: all {len(shards)} shards are as they were written")
    return 0


def _prepare(args: argparse.Namespace) -> bool:
    """Write the set; whether it is finished."""
    from miras.data import DataConfig
    from miras.data.prepared.prepare import prepare
    from miras.runtime import signals

    require(args.sequence is not None, "--sequence N is missing: give the tokens of a row.")
    config = DataConfig(
        source=args.source,
        tokenizer=args.tokenizer,
        field=args.field,
        sequence=args.sequence,
        validation=args.validation,
    )

    def progress(done: int, total: int) -> None:
        print(f"{done} of {total} shards", flush=True)
        signals.check(f" after {done} of {total} shards, which are kept: repeat the command")

    processes = args.processes if args.processes is not None else os.cpu_count() or 1
    with signals.handled():
        found = prepare(
            config,
            args.out,
            align=args.align,
            shard=_parse_shard(args.shard),
            processes=processes,
            shard_bytes=args.shard_bytes,
            progress=progress,
        )
    for split, shards in found.shards.items():
        print(f"{split}: {_counted(shards, found.plan.sequence)}")
    if not found.finished:
        total = sum(found.plan.shards.values())
        done = sum(map(len, found.shards.values()))
        print(f"{done} of {total} shards of {args.out} are there; run the other parts of --shard")
    return found.finished


def _counted(shards: "list[Shard]", sequence: int) -> str:
    rows, tokens = (sum(getattr(shard, name) for shard in shards) for name in ("rows", "tokens"))
    filled = tokens / max(rows * sequence, 1)
    return f"{rows:,} rows of {sequence:,}, {tokens:,} tokens ({filled:.1%} of the positions)"


def _parse_shard(word: str) -> tuple[int, int]:
    first, slash, second = word.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and int(second)):
        raise ConfigError(f"--shard {word!r} is not of the form I/N, such as 0/4.")
    return int(first), int(second)
