"""The TFDS builder that stores a corpus of local files as an array_record data set.

``sources`` finds the files, ``splitting`` splits them, and ``corpus`` selects held-out documents.
"""

from __future__ import annotations

import hashlib
import pathlib
import platform
import re
from collections.abc import Iterator

import tensorflow_datasets as tfds

from miras.data.text.read_report import ReadReport, printable
from miras.data.text.sources import survey
from miras.data.text.splitting import PIECE_BYTES, read_documents
from miras.data.text.text_file import TextFile
from miras.data.tfds_cache import OfflineInfo, discard_damaged, prepare_once
from miras.errors import ConfigError

SPLIT = "documents"
"""The only split of the data set; ``corpus`` splits it by document."""


class LocalText(tfds.core.GeneratorBasedBuilder):
    """Text files as documents: features ``text`` (bytes as stored, or UTF-8) and ``name``.

    The name of the data set's config is a hash of the names and contents of all files, so a changed
    corpus makes a new data set. The metadata records ``sha256`` (the full hash), ``source``,
    ``files``, ``left_out`` (numbers by reason) and ``python``.

    Args:
        source: as in ``sources.survey``.
        field: as in ``sources.survey``.
        data_dir: folder of prepared data sets.

    Attributes:
        reading: the numbers of files that are read and left out.

    Raises:
        ConfigError: the source is missing, empty or unreadable.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded, so there are no checksums. TFDS 4.9.10 searches for their file with
    # importlib_resources, an undeclared dependency.
    url_infos = None

    def __init__(
        self, *, source: str = "stdlib", field: str = "text", data_dir: str | None = None
    ) -> None:
        self._source = source
        found = survey(source, field)
        self._files = found.files
        self._sha256 = _corpus_hash(self._files)
        self.reading: ReadReport = found.reading(source, self._sha256)
        label = re.sub(r"\W+", "_", pathlib.PurePath(source).name).strip("_") or "files"
        config = tfds.core.BuilderConfig(
            name=f"{label[:40]}-{self._sha256[:16]}",
            description=f"Local text from {printable(source)}",
        )
        if data_dir is not None:
            folder = pathlib.Path(data_dir, self.name, config.name, str(self.VERSION))
            discard_damaged(folder)
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return OfflineInfo(
            builder=self,
            description="Text files, one document each.",
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "name": tfds.features.Text()}
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(
                sha256=self._sha256,
                source=printable(self._source),
                files=len(self._files),
                left_out=self.reading.left_out,
                python=platform.python_version(),
            ),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, bytes]]]:
        n = -1
        for n, (name, text) in enumerate(read_documents(self._files)):
            # File names are not always UTF-8.
            yield n, {"text": text, "name": name.encode("utf-8", "surrogateescape")}
        if n < 0:
            raise ConfigError(
                f"data source {self._source!r} is an empty corpus: all of its "
                f"{len(self._files)} files are empty; give files with text."
            )


def prepare(source: str, cache: pathlib.Path, field: str = "text") -> LocalText:
    """Returns the builder of ``source`` with its data set prepared.

    Args:
        source: as in ``sources.survey``.
        cache: folder of prepared data sets; created if it does not exist.
        field: as in ``sources.survey``.

    Raises:
        ConfigError: the source is missing, empty or unreadable, or the cache cannot be written.
    """
    made = prepare_once(
        lambda: LocalText(source=source, field=field, data_dir=str(cache)), source, cache
    )
    assert isinstance(made, LocalText)
    return made


def _corpus_hash(files: list[TextFile]) -> str:
    digest = hashlib.sha256(f"{LocalText.VERSION} {PIECE_BYTES}".encode())
    for file in files:
        name = file.name.encode("utf-8", "surrogateescape")
        digest.update(len(name).to_bytes(8, "little") + name + file.digest())
    return digest.hexdigest()
