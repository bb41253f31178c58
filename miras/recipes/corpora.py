"""The texts of recipes: where each is, and the commands that prepare it under its name.

A recipe names the folder of a prepared set, relative to where the run starts; `--data` gives
another, such as a copy of it in a bucket.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text, tokenized and packed by `miras prepare`.

    Attributes:
        name: of the folder of the prepared set.
        title: what the text is.
        download: the command that fetches the text and the tokenizer.
        text: the files of the text after it.
        model: the file of the tokenizer after it.
        vocabulary: number of the tokenizer's ids.
        sequence: tokens of a row.
    """

    name: str
    title: str
    download: str
    text: str
    model: str
    vocabulary: int
    sequence: int = 4096

    @property
    def tokenizer(self) -> str:
        """The file of the tokenizer in the prepared set."""
        return f"{self.name}/tokenizer.{self.model.rpartition('.')[2]}"

    @property
    def prepare(self) -> str:
        """The command that writes the prepared set."""
        return (
            f"miras prepare '{self.text}' --tokenizer {self.model} --sequence {self.sequence} "
            f"--validation 0.001 --out {self.name}"
        )


FINEWEB_EDU = Corpus(
    name="fineweb_edu",
    title="FineWeb-Edu, the sample of 100 B tokens (2406.17557), with the tokenizer of Llama 2",
    download="hf download HuggingFaceFW/fineweb-edu --repo-type dataset --include "
    "'sample/100BT/*.parquet' --local-dir fineweb && hf download meta-llama/Llama-2-7b-hf "
    "tokenizer.model --local-dir llama2",
    text="fineweb/sample/100BT/*.parquet",
    model="llama2/tokenizer.model",
    vocabulary=32_000,
)
CORPORA = {corpus.name: corpus for corpus in (FINEWEB_EDU,)}
