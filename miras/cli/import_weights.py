"""The command `miras import`: writes a published checkpoint as a run."""

import argparse
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "import",
        help="write a published checkpoint as a run",
        description="Write a checkpoint that transformers or flash-linear-attention saved as a run "
        "at step 0, which `miras eval`, `miras generate` and `miras train --from` take.",
        epilog="Read from the folder: config.json, the weights in safetensors, the tokenizer and "
        "generation_config.json. PyTorch is not needed. docs/interop.md lists the layouts.",
    )
    parser.add_argument("source", metavar="FOLDER", help="folder of the checkpoint")
    parser.add_argument("--out", required=True, metavar="RUN", help="folder of the new run")
    parser.add_argument(
        "--tokenizer",
        metavar="FILE",
        help="tokenizer file, or byte (default: tokenizer.json or tokenizer.model of FOLDER)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import jax

    from miras.interop import import_run

    read = import_run(args.source, args.out, tokenizer=args.tokenizer)
    count = sum(leaf.size for leaf in jax.tree.leaves(read.params))
    print(f"{read.layout.model_type}: {count:,} parameters; run folder: {args.out}")
    options = {
        f"--{name.replace('_', '-')}": read.generation[name]
        for name in ("temperature", "top_k", "top_p")
        if read.generation.get(name) is not None
    }
    if options:
        words = " ".join(f"{name} {value}" for name, value in options.items())
        print(f"its generation_config.json: miras generate {args.out} {words}")
    return 0
