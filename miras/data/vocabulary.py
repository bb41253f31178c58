"""Which tokens the rows of a config hold: those of its tokenizer, or symbols of its task."""

from miras.config import to_dict
from miras.data.config import DataConfig
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.errors import ConfigError


def vocabulary(data: DataConfig) -> int:
    """Tokens that rows of a config may hold: those of its task, or of its tokenizer.

    Raises:
        ConfigError: for a tokenizer that cannot be used.
    """
    own = None if data.task is None else data.task.vocabulary()
    return make_tokenizer(data.tokenizer).vocab_size if own is None else own


def check_text(data: DataConfig, what: str) -> None:
    """Refuse what needs text for a config whose rows are symbols of a task.

    Raises:
        ConfigError: naming the task.
    """
    if data.task is not None and data.task.vocabulary() is not None:
        raise ConfigError(
            f"the run was trained on task {to_dict(data.task)['kind']!r}, whose tokens are no "
            f"text: {what} needs a run that was trained on text."
        )
