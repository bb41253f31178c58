"""Setting: a rule with all that decides which function it computes, and what its parts declare."""

import dataclasses
from typing import Any

from miras.config import Config, require, to_dict
from miras.layers.config import AttentionConfig, LayerConfig
from miras.mixers import TokenMixer
from miras.rule import legality
from miras.rule.rule import Rule

_COMPUTED = {  # what a formula says must not be overridden below it
    "memory": ("init", "apply", "features", "associations"),
    "bias": ("loss", "residual"),
    "retention": ("effective", "link", "unlink", "prox"),
    "algorithm": ("step", "coefficients", "transform"),
}


@dataclasses.dataclass(frozen=True)
class EquationSetting:
    """A rule and how it is run; the fields are those of `miras.scan` and of a model.

    Attributes:
        rule: the four parts.
        chunk: C; None where it is left open.
        refine: sweeps.
        exact: the online rule in closed form.
        layer: how tokens become keys, values and gates; None for inputs as they are given.
        architecture: the kind of token mixer around the memory.
        attention: beside the memory; None without.
        mixer: that token mixer; None for a rule alone.
    """

    rule: Rule
    chunk: int | None = None
    refine: int = 0
    exact: bool = False
    layer: LayerConfig | None = None
    architecture: str = "memory"
    attention: AttentionConfig | None = None
    mixer: TokenMixer | None = None

    @property
    def is_mac(self) -> bool:
        """Whether the memory's tokens are what attention made of the layer's."""
        return self.architecture == "mac"

    @property
    def online(self) -> bool:
        """Whether each gradient is taken at the memory just before its token."""
        swept = self.chunk is not None and self.refine >= self.chunk
        return self.exact or self.chunk == 1 or swept

    @property
    def keys(self) -> str:
        """How associations are made: see `LayerConfig.keys`."""
        return "plain" if self.layer is None else self.layer.keys


def setting_of(model: Any, chunk: int | None, refine: int, exact: bool) -> EquationSetting:
    """The setting of a rule, of a model's config, or of a memory's.

    Raises:
        ConfigError: for anything else, for semantics that the rule does not take, and for a chunk
            beside a config that has its own.
    """
    if isinstance(model, Rule):
        require(
            chunk is None or (isinstance(chunk, int) and chunk >= 1),
            f"chunk={chunk!r} must be a whole number of at least 1, or None for any.",
        )
        for condition in legality.of_semantics(model, refine, exact):
            require(condition.legal, condition.reason)
        return EquationSetting(model, chunk, refine, exact)
    has_rule = isinstance(model, Config) and isinstance(getattr(model, "rule", None), Rule)
    require(
        has_rule,
        f"equations are those of a Rule, or of a model's config, not of {model!r}: give one, as "
        "miras.preset('yaad') does.",
    )
    require(
        chunk is None and not refine and not exact,
        f"this {type(model).__name__} has its own chunk, refine and exact: change them with "
        "miras.override, or give its rule alone.",
    )
    beside = {name: getattr(model, name) for name in ("layer", "attention") if hasattr(model, name)}
    config: Any = model
    if hasattr(config, "mixer"):
        beside |= {"architecture": config.mixer.kind, "mixer": config.mixer}
    return EquationSetting(config.rule, config.chunk, config.refine, config.exact, **beside)


def declares(part: Any, axis: str, method: str = "formula") -> bool:
    """Whether a part's formula is of what it computes, and not of a class that it is below."""
    of_method = {"rate_formula": ("effective",), "association_formula": ("associate",)}
    names = of_method[method] if method in of_method else _COMPUTED[axis]
    own = _owner(part, method)
    return all(own <= _owner(part, name) for name in names)


def overrides(part: Any, name: str) -> bool:
    """Whether a part has a method other than its axis's base class."""
    return getattr(type(part), name) is not getattr(_base(part), name)


def told(part: Any) -> str:
    """A part by its name and fields, as in "lp(p=3.0)"."""
    fields = {name: value for name, value in to_dict(part).items() if name != "kind"}
    return f"{part.kind}({', '.join(f'{k}={v}' for k, v in fields.items())})"


def _owner(part: Any, name: str) -> int:
    """How many classes above the part's own one defines it."""
    order = type(part).__mro__
    return next(i for i, cls in enumerate(order) if name in vars(cls))


def _base(part: Any) -> type:
    """The base class of the part's axis."""
    return next(cls for cls in reversed(type(part).__mro__) if "registry" in vars(cls))
