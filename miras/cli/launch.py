"""The command `miras launch`: writes the file or command with which another tool starts a run."""

import argparse
import pathlib
import re
from typing import TYPE_CHECKING, Any

from miras.cli import train
from miras.cli.arguments import Parser, parse
from miras.cli.options import DEFAULT_PRESET, add_plugins, split_preset
from miras.config import plugins, require
from miras.errors import ConfigError
from miras.runtime.files import write_atomically
from miras.runtime.paths import is_remote

if TYPE_CHECKING:
    from miras.launch import LaunchJob
    from miras.parallel.slices import Slice
    from miras.train import RunConfig

_TOOLS = ("sky", "xpk", "gcloud", "slurm", "ray")
_OWN_DISK = ("slurm", "ray")  # tools of clusters whose hosts share a disk already
IMAGE = "miras:latest"


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "launch",
        help="write what SkyPilot, xpk, gcloud, SLURM or Ray need to start a run",
        description="Write the file or command with which an existing tool starts `miras train` on "
        "every host of a slice, and again after a preemption. The run's config is checked first. "
        "Nothing is submitted: the command prints how.",
        epilog="Examples: `miras launch sky --on v5e-8 --spot --image IMAGE -- train --recipe "
        "miras-340m-15b --data gs://bucket/fineweb_edu --out gs://bucket/runs/yaad`, `miras launch "
        "slurm --on h100-32 -- train yaad --data /shared/corpus --out /shared/runs/mine`.",
    )
    parser.add_argument("tool", choices=_TOOLS, metavar="TOOL", help=", ".join(_TOOLS))
    parser.add_argument("command", nargs="*", metavar="-- train ...", help="as of `miras train`")
    parser.add_argument(
        "--on", metavar="SLICE", help="as of `miras train`, to which it is given, too"
    )
    parser.add_argument("--name", metavar="NAME", help="of the job (default: from the config)")
    parser.add_argument(
        "--image",
        default=IMAGE,
        metavar="IMAGE",
        help=f"container of the job, made by the Dockerfile of miras (default: {IMAGE})",
    )
    parser.add_argument(
        "--spot", action="store_true", help="on chips that cost less and may be taken away"
    )
    parser.add_argument(
        "--restarts",
        type=int,
        default=100,
        metavar="N",
        help="how often xpk and Ray start the command again (default: 100)",
    )
    parser.add_argument("--zone", default="", metavar="ZONE", help="zone of the cloud")
    parser.add_argument("--project", default="", metavar="PROJECT", help="project of the cloud")
    parser.add_argument(
        "--cluster", default="", metavar="NAME", help="cluster of xpk, or address of Ray"
    )
    parser.add_argument(
        "--shared",
        default="",
        metavar="HOST:/PATH",
        help="NFS export that the hosts mount at /shared, for a run folder that is not in a "
        "bucket; of xpk, the name of an attached storage",
    )
    parser.add_argument(
        "--out", default=".", metavar="DIR", help="folder of the written files (default: .)"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.launch import TOOLS

    launch = TOOLS[args.tool](_job(args))
    folder = pathlib.Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in launch.files.items():
        write_atomically(folder / name, text)
        print(f"# {folder / name}\n{text}")
    print("\n".join(["To submit, in that folder:", *(f"    {line}" for line in launch.submit)]))
    for note in launch.notes:
        print(note)
    return 0


def _job(args: argparse.Namespace) -> "LaunchJob":
    """The job of the arguments, whose command is a valid one of `miras train`.

    Raises:
        ConfigError: it is not.
    """
    from miras.launch import LaunchJob
    from miras.parallel.slices import parse_slice

    require(
        args.command[:1] == ["train"],
        "`miras launch` needs the command after --, as in `miras launch sky --on v5e-8 -- train "
        "yaad --out gs://bucket/run`.",
    )
    words = parse(_parser(), args.command)
    require(
        None in (args.on, words.on) or args.on == words.on,
        f"--on {args.on} and, after --, --on {words.on} differ: give one.",
    )
    name = args.on or words.on
    require(name is not None, "--on SLICE is missing: give v5e-16, 2xv5e-256, h100-8 or another.")
    words.on, on = name, parse_slice(name)
    for source in words.plugin or ():
        plugins.load(source)
    config = train.planned_config(words, with_data=False)
    _check_folder(args, words.out, on)
    _check(args.tool, words, config, on)
    command = tuple(args.command)
    return LaunchJob(
        command=command if "--on" in command else (*command, "--on", name),
        on=on,
        name=args.name or _name(words, config),
        image=args.image,
        spot=args.spot,
        restarts=args.restarts,
        zone=args.zone,
        project=args.project,
        cluster=args.cluster,
        shared=args.shared,
    )


def _parser() -> Parser:
    """A parser of `miras train` alone."""
    parser = Parser(prog="miras")
    commands = parser.add_subparsers(parser_class=Parser)
    train.add_parser(commands)
    parser.commands = dict(commands.choices)
    add_plugins(parser.commands["train"])
    return parser


def _check(tool: str, words: argparse.Namespace, config: "RunConfig", on: "Slice") -> None:
    """Check that the slice divides the run, and that its hosts can read and write what it names."""
    from miras.train.sharding import check_fits

    check_fits(config, config.mesh.sizes(on.devices))
    given = [words.coordinator, words.processes, words.process]
    require(
        given == [None, None, None],
        "leave out --coordinator, --processes and --process: each host of the job has its own.",
    )
    require(not words.dry_run, "--dry-run starts no run: leave it out after --.")
    from miras.data.tokenizers.built_in import BUILT_IN

    data = config.data
    paths = {
        "data.tokenizer": "" if data.tokenizer in BUILT_IN else data.tokenizer,
    }
    sources = [data.source, *data.mix]
    paths |= {f"data {source}": source for source in sources if source != "stdlib"}
    for what, path in paths.items():
        if path.startswith(("tfds:", "/")) or not path or is_remote(path) or tool == "slurm":
            continue
        raise ConfigError(
            f"{what} {path!r} is relative to a folder of this machine, which the hosts of the job "
            "lack: give gs://BUCKET/..., s3://BUCKET/... or an absolute path."
        )


def _check_folder(args: argparse.Namespace, out: str | None, on: "Slice") -> None:
    """Check that each host of the job finds the run folder, also after it was started again."""
    hosts = on.count * on.hosts
    require(
        out is not None and (is_remote(out) or out.startswith("/")),
        f"--out {'is missing' if out is None else repr(out)} after --: name a run folder that the "
        "same command finds again on other machines, as in --out gs://bucket/runs/mine.",
    )
    require(
        hosts == 1 or is_remote(str(out)) or bool(args.shared) or args.tool in _OWN_DISK,
        f"--out {out} must be a folder that the {hosts} hosts share: give --out gs://BUCKET/..., "
        "or --shared HOST:/PATH, which they mount at /shared.",
    )


def _name(words: argparse.Namespace, config: "RunConfig") -> str:
    """A name of the preset, the recipe and the hash of the config."""
    from miras.train.runs.mutable_fields import short_hash

    preset = split_preset(words.overrides)[0] or DEFAULT_PRESET
    text = re.sub(r"[^a-z0-9]+", "-", preset.lower())[:24].strip("-")
    return f"{text if text[:1].isalpha() else f'run-{text}'}-{short_hash(config)}"
