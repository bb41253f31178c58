"""Arguments that several commands share, each declared once."""

import argparse
from typing import Any

from miras.errors import ConfigError

DEFAULT_PRESET = "yaad"

MODEL_FIELDS = "a preset and fields of the model, as in width=256"
RUN_FIELDS = (
    f"a preset (default: {DEFAULT_PRESET}) and fields of the run's config, as in bias.delta=0.5"
)
TRAINING_TEXT = "training text, or a prepared set (default: the Python standard library)"


def add_preset_and_overrides(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `[PRESET] [KEY=VALUE ...]` as `args.overrides`; `split_preset` separates the two."""
    parser.add_argument("overrides", nargs="*", metavar="[PRESET] [KEY=VALUE ...]", help=text)


def add_overrides(parser: argparse.ArgumentParser, text: str, metavar: str = "KEY=VALUE") -> None:
    """Add `KEY=VALUE ...` as `args.overrides`."""
    parser.add_argument("overrides", nargs="*", metavar=metavar, help=text)


def add_run_folder(parser: argparse.ArgumentParser) -> None:
    """Add the folder of a trained run as `args.folder`."""
    parser.add_argument("folder", metavar="RUN", help="folder of the run")


def add_data(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--data`, which replaces the config's `data.source`."""
    parser.add_argument("--data", metavar="PATH|tfds:NAME", help=text)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add `--recipe` and `--on`: a named run that overrides change, and the slice for its mesh."""
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="size, data, batch, steps and optimiser of a named run, see `miras recipes`",
    )
    parser.add_argument(
        "--on",
        metavar="SLICE",
        help="the mesh for a slice of accelerators: v5e-256, v5p-128, v5e:16x16, 2xv5e-256 for "
        "two, h100-16 (default: fsdp over all devices)",
    )


def add_rates(parser: argparse.ArgumentParser) -> None:
    """Add `--rates`: inner rates after a swap of a part."""
    parser.add_argument(
        "--rates",
        choices=("matched", "raw", "default"),
        default="matched",
        help="inner rate after a swap of memory, bias, retention, link or algorithm, unless "
        "algorithm.lr is given: the one that writes as strongly as the preset (matched, the "
        "default), that of the preset (raw), or that of the new parts (default)",
    )


def add_seed(parser: argparse.ArgumentParser, text: str, **options: Any) -> None:
    """Add `--seed`."""
    parser.add_argument("--seed", type=int, metavar="N", help=text, **options)


def add_markdown(parser: argparse.ArgumentParser) -> None:
    """Add `--markdown` to a command that prints a table."""
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes: plugins to load, and whether to trust those of a run."""
    parser.add_argument(
        "--plugin",
        action="append",
        metavar="FILE.py|MODULE",
        help="load your own code that registers parts; the run saves a copy of it",
    )
    parser.add_argument(
        "--trust-plugins",
        action="store_true",
        help="run the plugin code in a run's folder even if the run was not trained here",
    )


def split_preset(arguments: list[str]) -> tuple[str | None, list[str]]:
    """The preset, None if there is none, and the overrides.

    Raises:
        ConfigError: for two presets.
    """
    overrides = [word for word in arguments if "=" in word]
    names = [word for word in arguments if "=" not in word]
    if len(names) > 1:
        raise ConfigError(f"{names[1]!r} is a second preset, or lacks its '=': give key=value.")
    return (names[0] if names else None), overrides


def model_overrides(overrides: list[str]) -> list[str]:
    """Overrides of a run's config as overrides of its model: `model.width=64` as `width=64`."""
    return [word.removeprefix("model.") for word in overrides]
