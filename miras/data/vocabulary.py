"""The vocabulary of a data config: that of its tokenizer, or of its task."""

from miras.config import to_dict
from miras.data.config import DataConfig
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.errors import ConfigError


def vocabulary(data: DataConfig) -> int:
    """The vocabulary size of a data config: of its task, or of its tokenizer.

    Raises:
        ConfigError: the tokenizer cannot be used.
    """
    own = None if data.task is None else data.task.vocabulary()
    return make_tokenizer(data.tokenizer).vocab_size if own is None else own


def check_text(data: DataConfig, what: str) -> None:
    """Check that the rows of a config are text.

    Args:
        data: of a run.
        what: what needs text, for the error.

    Raises:
        ConfigError: the rows are symbols of a task, or its model predicts no tokens.
    """
    check_language_model(data, what)
    if data.task is not None and data.task.vocabulary() is not None:
        raise ConfigError(
            f"the run was trained on task {to_dict(data.task)['kind']!r}, whose tokens are "
            f"not text: {what} needs a run that was trained on text."
        )


def check_language_model(data: DataConfig, what: str) -> None:
    """Check that the model of a run predicts tokens.

    Args:
        data: of a run.
        what: what needs a language model, for the error.

    Raises:
        ConfigError: the task of the run has a model of its own.
    """
    if data.task is not None and data.task.objective(data) is not None:
        raise ConfigError(
            f"the run was trained on task {to_dict(data.task)['kind']!r}, whose model predicts no "
            f"tokens: {what} needs a language model."
        )
