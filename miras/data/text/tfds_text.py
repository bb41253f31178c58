"""Text sets of TFDS that the user has prepared; they are read without TensorFlow."""

from __future__ import annotations

import pathlib
from typing import Any, cast

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants
from tensorflow_datasets.core.read_only_builder import builder_from_files
from tensorflow_datasets.core.registered import DatasetNotFoundError

from miras.data.text.documents import DocumentSource, SplitRecord
from miras.errors import ConfigError


def open_tfds(
    name: str, cache: pathlib.Path, split: str, field: str = "text"
) -> tuple[DocumentSource, bool]:
    """Returns documents of a TFDS set, and whether they are those of ``split``.

    They are if the set has its own validation split; otherwise they are its whole train split. A
    split of a single record (``tiny_shakespeare``) is split at newlines.

    Args:
        name: ``NAME``, with an optional ``/CONFIG``, ``:VERSION`` and ``#FEATURE``.
        cache: searched first, before the folder of TFDS (``$TFDS_DATA_DIR``).
        split: ``"train"`` or ``"validation"``.
        field: the feature if the name has none, unless it is ``"text"``.

    Raises:
        ConfigError: the set is not prepared, not in array_record format, or has no train split or
            no clear text feature.
    """
    name, _, wanted = name.partition("#")
    wanted = wanted or (field if field != "text" else "")
    if not name:
        raise ConfigError(
            "data source 'tfds:' names no TFDS set: write it as 'tfds:tiny_shakespeare'."
        )
    builder = _find(name, cache)
    feature = _text_feature(builder.info.features, wanted, name)
    splits = sorted(builder.info.splits)
    if "train" not in splits:
        raise ConfigError(
            f"TFDS set {name!r} has no 'train' split to train on (it has {', '.join(splits)}): "
            "choose another set."
        )
    divided = "validation" in splits
    part = split if divided else "train"
    try:
        # TFDS's decorators hide this method's signature from type checkers.
        source = cast(Any, builder).as_data_source(part)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"TFDS set {name!r} in {str(builder.data_dir)!r} is not in array_record format: remove "
            f"that folder and {_how_to_prepare(name, cache)}"
        ) from error
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"TFDS set {name!r} in {str(builder.data_dir)!r} is damaged ({reason}): remove that "
            f"folder and {_how_to_prepare(name, cache)}"
        ) from error
    size = int(builder.info.dataset_size)
    fingerprint = f"{builder.info.full_name} {part} {len(source)} records {size} bytes {feature}"
    documents = DocumentSource(source, feature, fingerprint, where=str(builder.data_dir))
    if len(documents) == 1:
        documents = DocumentSource(SplitRecord(documents[0], feature), feature, fingerprint)
    return documents, divided


def _find(name: str, cache: pathlib.Path) -> tfds.core.DatasetBuilder:
    for data_dir in (cache, pathlib.Path(constants.DATA_DIR).expanduser()):
        try:
            return builder_from_files(name, data_dir=str(data_dir))
        except DatasetNotFoundError:
            continue
        except Exception as error:  # for damaged files TFDS raises various exceptions
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"TFDS set {name!r} cannot be opened in {str(data_dir)!r} ({reason}): check its "
                "name, or remove its folder and prepare it again."
            ) from error
    raise ConfigError(
        f"TFDS set {name!r} is not prepared in {str(cache)!r}: {_how_to_prepare(name, cache)}"
    )


def _how_to_prepare(name: str, cache: pathlib.Path) -> str:
    return (
        'run python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{cache}', file_format='array_record')"
        '.download_and_prepare()" where TensorFlow is installed '
        "(most sets need it for this step alone)."
    )


def _text_feature(features: Any, wanted: str, name: str) -> str:
    """The feature ``wanted``, "text", or the only Text feature."""
    names = sorted(features)
    texts = [key for key in names if isinstance(features[key], tfds.features.Text)]
    if wanted:
        if wanted in texts:
            return wanted
    elif "text" in texts:
        return "text"
    elif len(texts) == 1:
        return texts[0]
    missing = f"no text feature {wanted!r}" if wanted else "no single text feature"
    raise ConfigError(
        f"TFDS set {name!r} has {missing} among its features {', '.join(names)}: "
        + (f"choose one as in 'tfds:{name}#{texts[0]}'." if texts else "choose another set.")
    )
