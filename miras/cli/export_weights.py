"""The command `miras export`: writes a run's model for Hugging Face libraries."""

import argparse
from typing import Any

from miras.cli.options import add_run_folder


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "export",
        help="write a run's model for Hugging Face libraries",
        description="Write the model of a run as config.json, model.safetensors and its tokenizer, "
        "in the layout in which transformers or flash-linear-attention publish this model. A model "
        "without one is written with modeling_miras.py, its recurrence in PyTorch.",
        epilog="PyTorch is not needed. docs/interop.md says which models can be written.",
    )
    add_run_folder(parser)
    parser.add_argument("out", metavar="DIR", help="folder to write")
    parser.add_argument(
        "--layout",
        metavar="MODEL_TYPE",
        help="the published layout, or miras for modeling_miras.py (default: the first that fits)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.cli.runs import load_run
    from miras.interop import export_run
    from miras.train.runs.run_folder import RunFolder

    run = load_run(args.folder)
    found = export_run(run, args.out, folder=RunFolder(args.folder).path, layout=args.layout)
    print(f"{found}: step {run.step} of {args.folder}; folder: {args.out}")
    return 0
