"""The TFDS builder that keeps a corpus of local files as an array_record data set.

Which files and how they are cut is ``files``; which documents are held out is ``corpus``.
"""

from __future__ import annotations

import hashlib
import pathlib
import platform
import re
from collections.abc import Iterator

import tensorflow_datasets as tfds

from miras.data.text.read_report import Reading, printable
from miras.data.text.sources import survey
from miras.data.text.splitting import PIECE_BYTES, read_documents
from miras.data.text.text_file import TextFile
from miras.data.tfds_cache import OfflineInfo, discard_damaged, prepared
from miras.errors import ConfigError

SPLIT = "documents"
"""The data set's only split; ``corpus`` divides it by document."""


class LocalText(tfds.core.GeneratorBasedBuilder):
    """Text files as documents: features ``text`` (bytes as stored, or UTF-8) and ``name``.

    The data set's config is a hash of every file's name and content, so a changed corpus is a new
    data set. Its metadata records ``sha256`` (that hash in full), ``source``, ``files``,
    ``left_out`` (how many by reason, when it was made) and ``python``.

    Args:
        source: as ``sources.survey`` takes it.
        field: as ``sources.survey`` takes it.
        data_dir: folder of prepared data sets.

    Attributes:
        reading: how many files there are now, and what is left out.

    Raises:
        ConfigError: the source is missing, empty or unreadable.
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded, so there are no checksums; TFDS 4.9.10 looks for their file with
    # importlib_resources, which it does not declare and a fresh environment lacks.
    url_infos = None

    def __init__(
        self, *, source: str = "stdlib", field: str = "text", data_dir: str | None = None
    ) -> None:
        self._source = source
        found = survey(source, field)
        self._files = found.files
        self._sha256 = _corpus_hash(self._files)
        self.reading: Reading = found.reading(source, self._sha256)
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
            # A name on disk need not be UTF-8.
            yield n, {"text": text, "name": name.encode("utf-8", "surrogateescape")}
        if n < 0:
            raise ConfigError(
                f"data source {self._source!r} is an empty corpus: all of its "
                f"{len(self._files)} files are empty; give files with text."
            )


def prepare(source: str, cache: pathlib.Path, field: str = "text") -> LocalText:
    """Returns the prepared data set of ``source``, made on the first call and found on later ones.

    Args:
        source: as ``sources.survey`` takes it.
        cache: folder of prepared data sets; made if missing.
        field: as ``sources.survey`` takes it.

    Raises:
        ConfigError: the source is missing, empty or unreadable, or the cache cannot be written.
    """
    made = prepared(
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
