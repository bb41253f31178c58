"""The layouts that miras reads and writes, by `model_type`."""

from typing import Any

from miras.errors import ConfigError
from miras.interop import layouts
from miras.interop.layout import REGISTERED, Layout

assert layouts.__all__  # importing the package registers them


def known_layouts() -> dict[str, Layout]:
    """All layouts by `model_type`."""
    return dict(REGISTERED)


def layout_of(model_type: Any) -> Layout:
    """The layout of a `model_type`.

    Raises:
        ConfigError: it is none that miras reads.
    """
    if model_type not in REGISTERED:
        raise ConfigError(
            f"config.json has model_type={model_type!r}, of which miras reads no weights: it reads "
            f"{', '.join(sorted(REGISTERED))}."
        )
    return REGISTERED[model_type]
