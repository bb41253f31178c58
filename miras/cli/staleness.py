"""The command `miras staleness`: arguments in, table and files out.

What needs jax or reads text is imported when the command runs, as in `cli`.
"""

import argparse
import json
import os
import pathlib
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from miras.config import override, require
from miras.errors import ConfigError
from miras.runtime.files import expanded

if TYPE_CHECKING:
    from miras.train import Run, RunConfig

CHUNKS, REFINES = (1, 4, 16, 64, 256), (0, 1, 2, 3)


class Sources(NamedTuple):
    """How the command line makes what all its commands start from.

    Attributes:
        new: the config of a run from a preset, assignments and a data source.
        load: a run from its folder.
    """

    new: "Callable[[str, list[str], str | None], RunConfig]"
    load: "Callable[[str], Run]"


def add_parser(commands: Any, sources: Sources) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "staleness",
        help="tell how far a model is from its online rule, by chunk and refine",
        description="The distance of a model's memories to the online rule (chunk=1), its bits per "
        "byte and its time, for each chunk and number of refinements. Nothing is trained.",
        epilog="Examples: `miras staleness titans_lmm`, `miras staleness runs/mine --length 512`, "
        "`miras staleness yaad width=64 --chunks 1,8,64 --refine 0,1`.",
    )
    parser.add_argument("model", metavar="PRESET|RUN", help="a preset, or the folder of a run")
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="fields of the run, as in width=256"
    )
    parser.add_argument(
        "--data", metavar="PATH|tfds:NAME", help="text to measure on (default: the run's own)"
    )
    parser.add_argument(
        "--length",
        metavar="N",
        help="tokens of each held-out document (default: 1024, for a run those of its rows)",
    )
    parser.add_argument("--chunks", metavar="N,...", help=f"default: {_joined(CHUNKS)}")
    parser.add_argument("--refine", metavar="N,...", help=f"default: {_joined(REFINES)}")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the results (default: runs/staleness-PRESET, or RUN)",
    )
    parser.set_defaults(run=lambda args: _run(args, sources))


def _run(args: argparse.Namespace, sources: Sources) -> int:
    from miras.analysis.staleness.plan import make_plan
    from miras.presets import PRESETS
    from miras.runtime.files import check_target

    chunks = _numbers("--chunks", args.chunks, CHUNKS)
    refines = _numbers("--refine", args.refine, REFINES)
    length = None if args.length is None else _number("--length", args.length)
    require(length is None or length >= 1, f"--length {length} must be at least 1.")
    folder = None
    if args.model not in PRESETS and (os.sep in args.model or os.path.exists(args.model)):
        folder = args.model
        config = _config_of_run(folder, args.words, args.data)
    else:
        config = sources.new(args.model, args.words, args.data)
    make_plan(config.model, chunks, refines)
    out = expanded(args.out or folder or f"runs/staleness-{args.model}")
    _check_folder(out)
    check_target(out / "staleness.json")
    return _measure(args, sources, config, folder, chunks, refines, length, out)


def _measure(
    args: argparse.Namespace,
    sources: Sources,
    config: "RunConfig",
    folder: str | None,
    chunks: tuple[int, ...],
    refines: tuple[int, ...],
    length: int | None,
    out: pathlib.Path,
) -> int:
    from rich.console import Console

    from miras.analysis.staleness import measure, report, text
    from miras.analysis.staleness.plan import Setting, make_plan
    from miras.analysis.staleness.plot import plot
    from miras.data import check_text, make_tokenizer
    from miras.errors import fail
    from miras.runtime.figures import write_picture
    from miras.runtime.files import write_whole
    from miras.train.runs.run_folder import cannot_write

    check_text(config.data, "staleness")
    tokenizer = make_tokenizer(config.data.tokenizer)
    require(
        config.model.vocab >= tokenizer.vocab_size,
        f"model.vocab={config.model.vocab} is too small for tokenizer {config.data.tokenizer!r}: "
        f"use model.vocab={tokenizer.vocab_size}.",
    )
    usual = text.LENGTH if folder is None else config.data.sequence
    found = text.held_out(config.data, tokenizer, length or usual, exactly=length is not None)
    fitting = text.fitting(chunks, found.length)
    require(
        args.chunks is None or len(fitting) == len(chunks),
        f"--chunks {args.chunks} has chunks longer than the text of {found.length} tokens, which "
        f"are all the same: leave out those above {found.length}, or raise --length.",
    )
    plan = make_plan(config.model, fitting, refines)
    params, step = _parameters(sources, config, folder)

    console = Console()
    say = lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
    made = report.Report(
        name=args.model,
        step=step,
        trained_on=config.data.sequence if folder is not None else None,
        command=_command(args),
        source=config.data.source,
        config=config.model,
        plan=plan,
        text=found,
        cells={},
    )
    say(report.heading(made))
    if len(fitting) < len(chunks):
        say(f"chunks above {found.length} are left out, as no row is longer: --length reads more.")
    total = len(plan.settings)
    with console.status(f"measuring {total} settings") as status:

        def tell(setting: Setting, n: int) -> None:
            status.update(f"measuring {setting} ({n} of {total})")

        made = made._replace(cells=measure.measure(config.model, params, plan, found, tell))
    console.print()
    console.print(report.table(made))
    for line in report.notes(made):
        say(line)
    try:
        out.mkdir(parents=True, exist_ok=True)
        content = json.dumps(report.as_json(made), indent=1, allow_nan=False)
        write_whole(out / "staleness.json", content + "\n")
    except OSError as error:
        raise ConfigError(cannot_write(out, error)) from error
    warn = lambda reason: fail(reason, 0)  # noqa: E731
    drawn = write_picture(out / "staleness.png", lambda: plot(made), warn)
    say(f"written: {out / 'staleness.json'}" + (f", {out / 'staleness.png'}" if drawn else ""))
    return 0


def _config_of_run(folder: str, words: list[str], source: str | None) -> "RunConfig":
    """A run's config with what does not touch its parameters changed."""
    import jax

    from miras.train.runs.run_folder import RunFolder
    from miras.train.state import structure

    own = RunFolder(folder).read_own_config()
    config = override(own, *words)
    if source is not None:
        config = override(config, f"data.source={source}")
    if config.model != own.model:
        shapes = [
            jax.tree.map(lambda leaf: leaf.shape, structure(c.model)[1].to_pure_dict())
            for c in (own, config)
        ]
        require(
            shapes[0] == shapes[1],
            f"{' '.join(words)} changes the parameters that {folder} has trained: leave it out, or "
            "measure a new model of a preset.",
        )
    return config


def _parameters(sources: Sources, config: "RunConfig", folder: str | None) -> tuple[Any, int]:
    """Parameters, and the updates they have seen."""
    from flax import nnx

    from miras.analysis.staleness.measure import new_parameters

    if folder is None:
        return new_parameters(config.model, config.train.seed), 0
    run = sources.load(folder)
    return nnx.to_pure_dict(nnx.state(run.model, nnx.Param)), run.step


def _check_folder(out: pathlib.Path) -> None:
    """Refuse a place that cannot be a folder; nothing is made yet."""
    parent = out
    try:
        while not parent.exists() and parent != parent.parent:
            parent = parent.parent
    except OSError as error:
        raise ConfigError(
            f"{str(out)[:60]!r}... cannot be a folder ({error.strerror}): give another with --out."
        ) from error
    require(
        parent.is_dir() and os.access(parent, os.W_OK),
        f"cannot write {out} ({parent} is {'read-only' if parent.is_dir() else 'not a folder'}): "
        "give another folder with --out.",
    )


def _command(args: argparse.Namespace) -> str:
    options = [
        word
        for name in ("data", "length", "chunks", "refine", "out")
        if (value := getattr(args, name)) is not None
        for word in (f"--{name}", value)
    ]
    return shlex.join(["miras", "staleness", args.model, *args.words, *options])


def _joined(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _numbers(option: str, text: str | None, default: tuple[int, ...]) -> tuple[int, ...]:
    if text is None:
        return default
    return tuple(_number(option, part) for part in text.split(","))


def _number(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        example = "1024" if option == "--length" else "0,1,2" if option == "--refine" else "1,16,64"
        raise ConfigError(f"{option} {text!r} is not a whole number: give {example}.") from None
