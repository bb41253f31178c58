"""Descriptions of models for a terminal: equations, parts, size and cost.

The table of presets builds no model; a description counts the costs of its model.
"""

import math
from collections.abc import Iterator
from typing import Any

from rich.table import Table

from miras.config import to_dict
from miras.models import LanguageModelConfig
from miras.presets import PRESETS, Preset


def description(preset: Preset, config: LanguageModelConfig) -> str:
    """The description of a model for a terminal: its equations, parts, size, cost and sources.

    Args:
        preset: from which the config comes.
        config: the preset's config, or one with overrides.
    """
    from miras.analysis.equation import page

    papers = [("preset", _source(preset, config))]
    blocks = []
    for letter, block in _described(config).items():
        told, sources = _rule(block)
        papers += sources
        title = f"block {letter}: {config.block(letter).mixer.describe(config.block(letter))}"
        blocks += ([title] if config.blocks else []) + told
    return "\n\n".join(
        [
            f"{preset.name}: {preset.title}",
            *blocks,
            "\n".join(["model", *page.table(_model(config))]),
            page.sources(dict.fromkeys(papers)),
        ]
    )


def _described(config: LanguageModelConfig) -> dict[str, Any]:
    """The model itself, or each of its blocks."""
    if not config.blocks:
        return {"M": config}
    return {letter: config.block(letter) for letter in config.letters}


def _rule(block: Any) -> tuple[list[str], list[tuple[str, str]]]:
    """The equations and parts of a block's rule, and their sources; nothing without a rule."""
    from miras.analysis.equation import compose, page, setting, setting_of

    if "rule" not in block.mixer.uses:
        return [], []
    found = compose(setting_of(block, None, 0, False))
    parts = [(axis, setting.told(getattr(block.rule, axis))) for axis in block.rule.kinds()]
    parts.append(("order", f"{block.rule.order}, read {block.rule.read}"))
    return [*page.blocks(found), "\n".join(["parts", *page.table(parts)])], list(found.sources)


def _model(config: LanguageModelConfig) -> Iterator[tuple[str, str]]:
    """Sizes and costs."""
    from miras.analysis.costs import CONTEXT, costs

    found = costs(config)
    sizes = f"{config.layers} layers, width {config.width}, {config.heads} heads"
    yield "size", f"{sizes}, chunk {config.chunk}; {found.parameters:,} parameters"
    yield "form", form(config)
    yield from _attention(config)
    state = f"{found.state_bytes:,} bytes per sequence"
    grows = f", and {found.growth_bytes:,} more for each token"
    yield "state", state + (grows if found.growth_bytes else ", of any length")
    blocks = [config.block(letter) for letter in config.letters]
    rules = [rule for block in blocks for rule in block.mixer.rules(block)]
    grown = config.growth_bytes or any(rule.memory.keeps_tokens for rule in rules)
    context = f" after {CONTEXT:,} tokens" if grown else ""
    yield "FLOPs", f"{_round(found.flops)} per token forward{context}"


def _source(preset: Preset, config: LanguageModelConfig) -> str:
    """The preset's paper, and the fields that differ from the preset."""
    own, now = (dict(_flat(to_dict(c))) for c in (preset.build(), config))
    decides = (
        "rule.",
        "layer.",
        "chunk",
        "refine",
        "exact",
        "architecture",
        "pattern",
        "attention.",
        "channel",
        "blocks.",
    )
    changed = sorted(
        name for name in own.keys() | now.keys()
        if own.get(name) != now.get(name) and name.startswith(decides)
    )  # fmt: skip
    parts = [name.split(".") for name in changed]  # a new block is one change
    new = {name for name in config.blocks if name not in preset.build().blocks}
    changed = list(
        dict.fromkeys(".".join(n[:2] if n[0] == "blocks" and n[1] in new else n) for n in parts)
    )
    if not changed:
        return preset.source
    whose = "its rule was changed" if any(n.startswith("rule.") for n in changed) else "changed"
    whole = [name.removesuffix(".kind") for name in changed if name.endswith(".kind")]
    inside = tuple(f"{name}." for name in whole)
    names = dict.fromkeys([*whole, *(n for n in changed if not n.startswith(inside))])
    names = ", ".join(name.removeprefix("rule.") for name in names)
    return f"{preset.source}, but {whose} here: {names}"


def _flat(config: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield path + name, value


def _attention(config: LanguageModelConfig) -> Iterator[tuple[str, str]]:
    """The attention that is combined with the memory: Titans' architectures, and hybrids."""
    if config.architecture != "lmm":
        of_own = config.architecture is config.mixer  # of no name of its own in configs
        yield "mixer" if of_own else "architecture", config.mixer.describe(config.block("M"))
    if config.letters != "M":
        named = {"M": "memory"} if config.architecture == "lmm" else {}
        layers = [
            named.get(letter) or config.block(letter).mixer.describe(config.block(letter))
            for letter in config.letters
        ]
        yield "pattern", ", ".join(layers)


def form(config: LanguageModelConfig) -> str:
    """Whether the model computes the online rule, and how."""
    rule = config.rule
    if config.exact:
        return "exact, in closed form"
    if rule.memory.keeps_tokens or rule.algorithm.online:
        return "exact"
    if config.chunk == 1 and rule.read == "token":
        return "exact, token by token"
    if rule.bias.slope == 0 and rule.memory.is_linear and rule.read == "token":
        return "exact"  # the gradient does not depend on the memory
    refined = f", refined {config.refine} times" if config.refine else ""
    return f"chunks of {config.chunk}{refined}"


def presets_table() -> Table:
    """The table of presets: parts, state, form and papers."""
    rows = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    rows.add_column("name", no_wrap=True)
    rows.add_column("memory, bias, retention, algorithm", min_width=17)
    rows.add_column("state", max_width=9)
    rows.add_column("form", max_width=10)
    rows.add_column("arXiv", min_width=10)
    for entry in PRESETS.values():
        config = entry.build()
        parts = ", ".join(config.rule.kinds().values())
        paper = entry.paper or entry.source
        rows.add_row(entry.name, parts, _state(config), form(config), paper)
    return rows


def presets_markdown() -> str:
    """The table in Markdown, with update equations: that of docs/models.md."""
    from miras.analysis.equation import update_of

    lines = [
        "| preset | memory, bias, retention, algorithm | update | state | form |",
        "|---|---|---|---|---|",
    ]
    for entry in PRESETS.values():
        config = entry.build()
        cells = (
            f"[`{entry.name}`](https://arxiv.org/abs/{entry.paper})" if entry.paper else entry.name,
            ", ".join(config.rule.kinds().values()),
            "<br>".join(update_of(config)),
            _state(config),
            form(config),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _state(config: LanguageModelConfig) -> str:
    if config.growth_bytes:
        return f"{_round(config.growth_bytes, 'B')} per token"
    return "constant"


def _round(number: float, unit: str = "") -> str:
    power = min(4, int(math.log10(max(number, 1)) // 3))
    if unit:
        return f"{number / 1000**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}{unit}"
    return f"{number / 1000**power:.3g} {('', 'thousand', 'million', 'billion', 'trillion')[power]}"
