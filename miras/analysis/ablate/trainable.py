"""Whether a run could start, before any is started."""

from typing import TYPE_CHECKING, Any, NamedTuple

from miras.analysis.ablate import held_out
from miras.config import require
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.train import RunConfig


class _Found(NamedTuple):
    """Why a config cannot be trained, or the digest of its held-out data."""

    reason: str | None
    digest: str | None


class TrainableCheck:
    """Raises `ConfigError` for a config whose run would raise it when it starts; writes nothing.

    The model is built from shapes alone, and each text is opened once.

    Args:
        with_data: whether to open the texts, whose prepared copies are kept in the cache.
    """

    def __init__(self, with_data: bool = True):
        self._with_data = with_data
        self._seen: dict[Any, _Found] = {}

    def __call__(self, config: "RunConfig") -> str | None:
        """Check one config; returns a digest of its held-out data (`held_out.digest`)."""
        from miras.train.objective_of import objective_of
        from miras.train.state import structure

        structure(config.model, objective_of(config.data))
        if not self._with_data:
            length, align = config.data.sequence, config.model.align
            require(
                length % align == 0,
                f"data.sequence={length} is not a multiple of align={align} (the memory's chunk).",
            )
            return None
        key = (config.data, config.train, config.model.align, config.model.vocab)
        if key not in self._seen:
            self._seen[key] = self._read(config)
        found = self._seen[key]
        require(found.reason is None, str(found.reason))
        return found.digest

    def _read(self, config: "RunConfig") -> _Found:
        from rich.console import Console

        from miras.train.runs.run_folder import RunFolder
        from miras.train.trainer import Trainer

        try:
            trainer = Trainer(config, RunFolder(""), Console(quiet=True))
        except ConfigError as error:
            return _Found(str(error), None)
        return _Found(None, held_out.digest(trainer.held_out))
