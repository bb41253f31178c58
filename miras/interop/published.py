"""Published: the `config.json` of a published checkpoint, with the defaults of its class."""

from collections.abc import Mapping
from typing import Any

from miras.config import require


class Published:
    """The fields of a published config.

    A saved config omits fields at the defaults of its class, so that a layout gives these.

    Args:
        fields: of config.json.
        defaults: of the config's class.
    """

    def __init__(self, fields: Mapping[str, Any], defaults: Mapping[str, Any]):
        self.fields = {**defaults, **fields}

    def __getitem__(self, name: str) -> Any:
        """The value of a field.

        Raises:
            ConfigError: the config has no such field.
        """
        require(
            name in self.fields,
            f"config.json has no field {name!r}, which model_type={self.model_type!r} needs: give "
            "the folder of a checkpoint that transformers saved.",
        )
        return self.fields[name]

    @property
    def model_type(self) -> str:
        """The name of the layout."""
        return str(self.fields.get("model_type"))

    def only(self, name: str, *supported: Any) -> Any:
        """The value of a field, which must be a supported one; the first if it is absent.

        Raises:
            ConfigError: it is another.
        """
        value = self.fields.get(name, supported[0])
        legal = " or ".join(map(repr, supported))
        require(
            any(value == known and type(value) is type(known) for known in supported),
            f"config.json has {name}={value!r}, which miras does not represent for "
            f"model_type={self.model_type!r}: supported is {legal}.",
        )
        return value

    def check(self, condition: bool, name: str, supported: str) -> None:
        """Raise `ConfigError` for a field's value unless a condition holds."""
        require(
            condition,
            f"config.json has {name}={self.fields.get(name)!r}, which miras does not represent for "
            f"model_type={self.model_type!r}: supported is {supported}.",
        )
