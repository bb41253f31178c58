"""The command `miras staleness`: measures the distance of a model's memories to the online rule."""

import argparse
import json
import os
import pathlib
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from miras.cli.options import add_data, add_overrides
from miras.cli.output import print_line
from miras.cli.runs import load_run, run_config, with_source
from miras.config import override, require
from miras.errors import ConfigError
from miras.runtime.paths import local_path

if TYPE_CHECKING:
    from rich.console import Console

    from miras.analysis.staleness.report import StalenessReport
    from miras.analysis.staleness.text import HeldOutText
    from miras.data import Tokenizer
    from miras.train import RunConfig

CHUNKS, REFINES = (1, 4, 16, 64, 256), (0, 1, 2, 3)


class _Request(NamedTuple):
    """What to measure.

    Attributes:
        model: the preset or folder, as it was given.
        command: the command line that repeats the measurement.
        config: the run's config.
        folder: the run's folder; None for a new model.
        chunks: to measure.
        refines: to measure.
        all_chunks: whether a chunk longer than the text is an error.
        length: tokens of each document; None for the default.
        out: folder of the results.
    """

    model: str
    command: str
    config: "RunConfig"
    folder: str | None
    chunks: tuple[int, ...]
    refines: tuple[int, ...]
    all_chunks: bool
    length: int | None
    out: pathlib.Path


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "staleness",
        help="measure how far a model is from its online rule, by chunk and refine",
        description="Measure the distance of a model's memories to the online rule (chunk=1), its "
        "bits per byte and its time per token, for each chunk and number of refinements. Nothing "
        "is trained.",
        epilog="Examples: `miras staleness titans_lmm`, `miras staleness runs/mine --length 512`, "
        "`miras staleness yaad width=64 --chunks 1,8,64 --refine 0,1`.",
    )
    parser.add_argument("model", metavar="PRESET|RUN", help="a preset, or the folder of a run")
    add_overrides(parser, "a field of the run's config, as in width=256")
    add_data(parser, "text whose held-out part is read (default: the run's data)")
    parser.add_argument(
        "--length",
        metavar="N",
        help="tokens per held-out document (default: 1024; for a run, its sequence length)",
    )
    parser.add_argument(
        "--chunks", metavar="N,...", help=f"chunks to measure (default: {_joined(CHUNKS)})"
    )
    parser.add_argument(
        "--refine",
        metavar="N,...",
        help=f"numbers of refinements to measure (default: {_joined(REFINES)})",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="folder of the results (default: runs/staleness-PRESET, or RUN)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    request, console = _request(args), Console()
    report = _measure(request, console)
    _print(report, console)
    print_line(console, f"written: {_write(report, request.out)}")
    return 0


def _request(args: argparse.Namespace) -> _Request:
    """The checked arguments; nothing is measured yet."""
    from miras.analysis.staleness.plan import make_plan
    from miras.presets import PRESETS
    from miras.runtime.files import check_target

    chunks = _parse_integers("--chunks", args.chunks, CHUNKS)
    refines = _parse_integers("--refine", args.refine, REFINES)
    length = None if args.length is None else _parse_integer("--length", args.length)
    require(length is None or length >= 1, f"--length {length} must be at least 1.")
    folder = None
    if args.model not in PRESETS and (os.sep in args.model or os.path.exists(args.model)):
        folder = args.model
        config = _config_of_run(folder, args.overrides, args.data)
    else:
        config = run_config(args.model, args.overrides, args.data)
    make_plan(config.model, chunks, refines)
    out = local_path(args.out or folder or f"runs/staleness-{args.model}")
    _check_folder(out)
    check_target(out / "staleness.json")
    return _Request(
        model=args.model,
        command=_command(args),
        config=config,
        folder=folder,
        chunks=chunks,
        refines=refines,
        all_chunks=args.chunks is not None,
        length=length,
        out=out,
    )


def _measure(request: _Request, console: "Console") -> "StalenessReport":
    from miras.analysis.staleness import measure, report, text
    from miras.analysis.staleness.plan import Setting, make_plan
    from miras.data import check_text

    config = request.config
    check_text(config.data, "staleness")
    found = _text(request, _tokenizer(config))
    chunks = text.fitting(request.chunks, found.length)
    require(
        not request.all_chunks or len(chunks) == len(request.chunks),
        f"--chunks {_joined(request.chunks)} has chunks longer than the text of {found.length} "
        f"tokens, which all give the same result: leave out those above {found.length}, or raise "
        "--length.",
    )
    plan = make_plan(config.model, chunks, request.refines)
    params, step = _parameters(config, request.folder)
    made = report.StalenessReport(
        name=request.model,
        step=step,
        trained_on=config.data.sequence if request.folder is not None else None,
        command=request.command,
        source=config.data.source,
        config=config.model,
        plan=plan,
        text=found,
        results={},
    )
    print_line(console, report.heading(made))
    if len(chunks) < len(request.chunks):
        print_line(
            console,
            f"chunks above {found.length} are left out, since no row is longer: raise --length to "
            "measure them.",
        )
    total = len(plan.settings)
    with console.status(f"measuring {total} settings") as status:

        def progress(setting: Setting, n: int) -> None:
            status.update(f"measuring {setting} ({n} of {total})")

        results = measure.measure(config.model, params, plan, found, progress)
    return made._replace(results=results)


def _tokenizer(config: "RunConfig") -> "Tokenizer":
    from miras.data import make_tokenizer

    tokenizer = make_tokenizer(config.data.tokenizer)
    require(
        config.model.vocab >= tokenizer.vocab_size,
        f"model.vocab={config.model.vocab} is too small for tokenizer {config.data.tokenizer!r}: "
        f"use model.vocab={tokenizer.vocab_size}.",
    )
    return tokenizer


def _text(request: _Request, tokenizer: "Tokenizer") -> "HeldOutText":
    from miras.analysis.staleness import text

    data, length = request.config.data, request.length
    default = text.LENGTH if request.folder is None else data.sequence
    return text.held_out(data, tokenizer, length or default, exactly=length is not None)


def _print(report: "StalenessReport", console: "Console") -> None:
    from miras.analysis.staleness.report import notes, table

    console.print()
    console.print(table(report))
    for line in notes(report):
        print_line(console, line)


def _write(report: "StalenessReport", out: pathlib.Path) -> str:
    """Write the report and its figure; the names of the files."""
    from miras.analysis.staleness.plot import plot
    from miras.analysis.staleness.report import as_json
    from miras.errors import fail
    from miras.runtime.figures import write_figure
    from miras.runtime.files import write_atomically
    from miras.train.runs.run_folder import cannot_write

    try:
        out.mkdir(parents=True, exist_ok=True)
        content = json.dumps(as_json(report), indent=1, allow_nan=False)
        write_atomically(out / "staleness.json", content + "\n")
    except OSError as error:
        raise ConfigError(cannot_write(out, error)) from error
    warn = lambda reason: fail(reason, 0)  # noqa: E731
    drawn = write_figure(out / "staleness.png", lambda: plot(report), warn)
    return f"{out / 'staleness.json'}" + (f", {out / 'staleness.png'}" if drawn else "")


def _config_of_run(folder: str, overrides: list[str], source: str | None) -> "RunConfig":
    """A run's config with overrides that keep the shapes of its parameters."""
    import jax

    from miras.train.runs.run_folder import RunFolder
    from miras.train.state import structure

    own = RunFolder(folder).read_relocated_config()
    config = with_source(override(own, *overrides), source)
    if config.model != own.model:
        shapes = [
            jax.tree.map(lambda leaf: leaf.shape, structure(c.model)[1].to_pure_dict())
            for c in (own, config)
        ]
        require(
            shapes[0] == shapes[1],
            f"{' '.join(overrides)} changes the shapes of the parameters in {folder}: leave it "
            "out, or measure a preset.",
        )
    return config


def _parameters(config: "RunConfig", folder: str | None) -> tuple[Any, int]:
    """The parameters, and the number of updates that trained them."""
    from flax import nnx

    from miras.analysis.staleness.measure import new_parameters

    if folder is None:
        return new_parameters(config.model, config.train.seed), 0
    run = load_run(folder)
    return nnx.to_pure_dict(nnx.state(run.model, nnx.Param)), run.step


def _check_folder(out: pathlib.Path) -> None:
    """Raise if the folder cannot be created or written; nothing is created yet."""
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
    return shlex.join(["miras", "staleness", args.model, *args.overrides, *options])


def _joined(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers))


def _parse_integers(option: str, text: str | None, default: tuple[int, ...]) -> tuple[int, ...]:
    if text is None:
        return default
    return tuple(_parse_integer(option, part) for part in text.split(","))


def _parse_integer(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        example = "1024" if option == "--length" else "0,1,2" if option == "--refine" else "1,16,64"
        raise ConfigError(f"{option} {text!r} is not a whole number: give {example}.") from None
