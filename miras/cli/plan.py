"""The command `miras plan`: what a run needs and how long its steps take on chips elsewhere."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from miras.cli.options import DEFAULT_PRESET, RUN_FIELDS, add_preset_and_overrides, split_preset
from miras.cli.output import print_line
from miras.config import require
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.analysis.plan.chips import Chip
    from miras.analysis.plan.compiled import Compiled
    from miras.analysis.plan.predict import Prediction
    from miras.analysis.plan.slices import PlannedSlice
    from miras.train import RunConfig

_TOKENS = "tokens_per_step"
_BEST = 2  # candidates of a search that are compiled


def add_parser(commands: Any) -> None:
    """Add the command to a parser's `add_subparsers()`."""
    parser = commands.add_parser(
        "plan",
        help="predict memory, time and cost of a run on TPUs and GPUs that you do not have",
        description="Predict what each chip of a slice holds at the peak of a train step, what "
        "the chips send each other, how long a step takes and what bounds it, without the chips.",
        epilog="Example: `miras plan yaad layers=24 width=2048 heads=16 vocab=32000 sequence=4096 "
        "dtype=bfloat16 tokens_per_step=0.5M --on v5e-256 --on v6e-64 --tokens 100B`.",
    )
    add_preset_and_overrides(
        parser,
        f"{RUN_FIELDS}; {_TOKENS}=0.5M sets data.batch; without mesh.*, a mesh that fits is chosen",
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="a named run that the fields change, see `miras recipes`"
    )
    parser.add_argument(
        "--on",
        action="append",
        required=True,
        metavar="SLICE",
        help="v5e-256, v6e-64, v5p-128 (TensorCores, two a chip), v5e:16x16, 2xv5e-256 for two "
        "slices, h200-8, or cpu, which is measured; may be repeated",
    )
    parser.add_argument("--tokens", metavar="N", help="tokens to train on, as in 100B, for hours")
    parser.add_argument(
        "--price",
        action="append",
        metavar="[CHIP=]PRICE",
        help="of a chip-hour, for the price of --tokens; may be repeated for several chips",
    )
    parser.add_argument(
        "--chip", action="append", metavar="FILE.json", help="describes a chip for --on, by name"
    )
    parser.add_argument(
        "--measured",
        metavar="RUN",
        help="plan the run of this folder, and print what it measured and the factor between",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="rank meshes, accumulated batches and remat with the same tokens a step",
    )
    parser.add_argument(
        "--no-compile",
        action="store_true",
        help="answer in seconds, without the TPU's compiler (minutes a slice; needs the extra tpu)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.analysis.plan.job import Job
    from miras.analysis.plan.predict import predict
    from miras.analysis.plan.scheduled import scheduled

    config, tokens, mesh_given = _config(args)
    slices = _slices(args)
    trained = _number(args.tokens, "--tokens")
    prices = [_price(args.price or [], on) for on in slices]
    plans: list[Prediction] = []
    wrong: list[str] = []
    kept_prices = []
    for on, price in zip(slices, prices, strict=True):
        try:
            fit = _fitted(config, on, tokens, mesh_given)
            plans.append(predict(Job(fit, on)))
            kept_prices.append(price)
        except ConfigError as error:
            if len(slices) == 1:
                raise
            wrong.append(f"{on.name}: {error}")
    require(bool(plans), " ".join(wrong))
    if args.search:
        return _search(args, plans)
    found, told = _compiled(args, plans)
    plans = [scheduled(plan, x) for plan, x in zip(plans, found, strict=True)]
    told += _measured(args.measured, plans)
    if args.json:
        from miras.analysis.plan.record import as_dict

        rows = [as_dict(plan, trained, price) for plan, price in zip(plans, kept_prices)]
        for row, compiled in zip(rows, found, strict=True):
            row["compiled"] = None if compiled is None else compiled._asdict()
        print(json.dumps({"plans": rows, "invalid": wrong, "notes": told}, indent=1))
        return 0
    _print(plans, found, trained, kept_prices, [*wrong, *told])
    return 0


def _measured(run: str | None, plans: "list[Prediction]") -> list[str]:
    """What a run measured beside each prediction."""
    from miras.analysis.plan.measured import measured

    if run is None:
        return []
    found = measured(run)
    return [
        f"measured: {1e3 * found.step(plan.job.step_tokens):.4g} ms a step "
        f"({found.tokens_per_second:,.0f} tokens/s, median of {found.intervals} intervals); "
        f"predicted on {plan.job.slice.name}: {1e3 * plan.step:.4g} ms; measured / predicted: "
        f"{found.step(plan.job.step_tokens) / plan.step:.2f}"
        for plan in plans
    ]


def _compiled(
    args: argparse.Namespace, plans: "list[Prediction]"
) -> "tuple[list[Compiled | None], list[str]]":
    """What the compiler says of each plan, and what it cannot say."""
    from rich.console import Console

    from miras.analysis.plan.compiled import compiled, why_not

    found: list[Compiled | None] = []
    told: list[str] = []
    for plan in plans:
        reason = why_not(plan.job)
        if args.no_compile and plan.job.slice.chip.kind == "tpu":
            reason = "not compiled"
        if reason:
            told.append(reason)
            found.append(None)
            continue
        with Console(stderr=True).status(f"compiling for {plan.job.slice.name}"):
            found.append(compiled(plan.job, args.plugin or ()))
        if found[-1] and found[-1].error:
            told.append(f"{plan.job.slice.name}: the compiler says: {found[-1].error}")
    return found, list(dict.fromkeys(told))


def _print(
    plans: "list[Prediction]",
    found: "list[Compiled | None]",
    tokens: int | None,
    prices: list[float | None],
    told: list[str],
) -> None:
    from rich.console import Console

    from miras.analysis.plan import tables

    console = Console()
    print_line(console, tables.heading(plans[0]))
    console.print()
    console.print(tables.table(plans, tokens, prices))
    console.print()
    console.print(tables.flops_table(plans[0]))
    if any(plan.traffic for plan in plans):
        console.print()
        console.print(tables.traffic_table(plans))
    both = [(plan, x) for plan, x in zip(plans, found, strict=True) if x is not None]
    if both:
        console.print()
        console.print(tables.compiled_table(*zip(*both, strict=True)))
    console.print()
    for line in [*told, *tables.notes(plans)]:
        print_line(console, line)


def _search(args: argparse.Namespace, plans: "list[Prediction]") -> int:
    from rich.console import Console

    from miras.analysis.plan import tables
    from miras.analysis.plan.record import as_dict
    from miras.analysis.plan.scheduled import scheduled
    from miras.analysis.plan.search import search

    console = Console()
    for plan in plans:
        found = search(plan.job.config, plan.job.slice)
        best = [x.prediction for x in found if x.prediction and x.prediction.fits][:_BEST]
        compiled, told = _compiled(args, best)
        best = [scheduled(plan, x) for plan, x in zip(best, compiled, strict=True)]
        if args.json:
            rows: list[dict[str, Any]] = [
                {"run": c.overrides, "verdict": c.verdict}
                | ({} if c.prediction is None else {"plan": as_dict(c.prediction)})
                for c in found
            ]
            for row, x in zip(rows, compiled):
                row["compiled"] = None if x is None else x._asdict()
            name = plan.job.slice.name
            print(json.dumps({"slice": name, "candidates": rows, "notes": told}, indent=1))
            continue
        console.print(plan.job.slice.name, style="bold")
        console.print(tables.search_table(found))
        both = [(plan, x) for plan, x in zip(best, compiled, strict=True) if x is not None]
        if both:
            console.print()
            console.print(tables.compiled_table(*zip(*both, strict=True)))
        for line in told:
            print_line(console, line)
    return 0


def _config(args: argparse.Namespace) -> "tuple[RunConfig, int | None, bool]":
    """The run, the tokens of a step, and whether the mesh is given."""
    from miras.analysis.plan.measured import measured
    from miras.cli.runs import run_config
    from miras.config import override

    name, words = split_preset(args.overrides)
    given = [word for word in words if word.partition("=")[0] == _TOKENS]
    words = [word for word in words if word not in given]
    keys = [word.partition("=")[0] for word in words]
    tokens = _number(given[-1].partition("=")[2], _TOKENS) if given else None
    require(
        tokens is None or not {"batch", "data.batch"} & set(keys),
        f"{_TOKENS} and data.batch are both given: leave one of them out.",
    )
    if args.measured is not None:
        require(
            name is None and args.recipe is None,
            f"--measured {args.measured} plans that run: leave out {name or '--recipe'}.",
        )
        config = override(measured(args.measured).config, *words)
        return config, tokens, True
    config = run_config(name or DEFAULT_PRESET, words, None, rates="matched", recipe=args.recipe)
    return config, tokens, any(key.startswith("mesh") for key in keys)


def _fitted(
    config: "RunConfig", on: "PlannedSlice", tokens: int | None, mesh_given: bool
) -> "RunConfig":
    from miras.analysis.plan.fitting import fitted

    return fitted(config, on, tokens, mesh_given=mesh_given)


def _slices(args: argparse.Namespace) -> "list[PlannedSlice]":
    from miras.analysis.plan.slices import planned_slice

    described = _described(args.chip or [])
    if any(name.partition("-")[0] == "cpu" for name in args.on) and "cpu" not in described:
        from miras.analysis.plan.cpu import measured

        described["cpu"] = measured()
    return [planned_slice(name, described) for name in args.on]


def _described(files: list[str]) -> "dict[str, Chip]":
    from pathlib import Path

    from miras.analysis.plan.chips import Chip
    from miras.config import from_dict

    found: dict[str, Chip] = {}
    for file in files:
        try:
            values = json.loads(Path(file).read_text())
        except ValueError as error:
            raise ConfigError(f"--chip {file} is not JSON: {error}.") from None
        units = values.pop("units", None) if isinstance(values, dict) else None
        chip = from_dict(Chip, values)
        require(units is None, f"--chip {file} has units: give flops, and leave units out.")
        found[chip.name] = chip
    return found


def _number(text: str | None, named: str) -> int | None:
    from miras.analysis.match import parse_size

    if text is None:
        return None
    try:
        return parse_size(text)
    except ConfigError:
        raise ConfigError(
            f"{named}={text} is not a number of tokens: write it as 0.5M, 100B or 524288."
        ) from None


def _price(given: list[str], on: "PlannedSlice") -> float | None:
    found = None
    for word in given:
        chip, equals, price = word.rpartition("=")
        try:
            value = float(price)
        except ValueError:
            raise ConfigError(f"--price {word} is not a price: write 1.2, or v5e=1.2.") from None
        if not equals or chip == on.chip.name:
            found = value
    return found
