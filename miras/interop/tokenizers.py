"""The tokenizer of a run as the files that `AutoTokenizer` of transformers reads.

There a text begins with the document start, as in training and evaluation of the run.
"""

import json
import pathlib
from typing import Any

from miras.data import Tokenizer
from miras.data.tokenizers.byte import ByteTokenizer
from miras.data.tokenizers.hugging_face import byte_alphabet
from miras.runtime.files import write_atomically

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
_START = "<|startoftext|>"


def write_tokenizer(folder: pathlib.Path, tokenizer: Tokenizer) -> None:
    """Complete the files of a tokenizer in a folder that has its `tokenizer.json`, if it has one.

    A file whose post-processor does not put the document start before a text gets one that does.
    The tokenizer of bytes has no file of its own, and gets one. Other tokenizers without a
    `tokenizer.json` have no files that transformers reads without further packages.

    Args:
        folder: of an exported model.
        tokenizer: of the run.
    """
    if isinstance(tokenizer, ByteTokenizer):
        spec = _of_bytes()
    elif (folder / FILE).is_file():
        spec = json.loads((folder / FILE).read_text("utf-8"))
    else:
        return
    start, found = _started(spec, tokenizer.bos_id)
    if found != spec:
        write_atomically(folder / FILE, json.dumps(found, ensure_ascii=False) + "\n")
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "eos_token": start,
        "clean_up_tokenization_spaces": False,
    }
    write_atomically(folder / CONFIG, json.dumps(content, indent=2) + "\n")


def _started(spec: dict[str, Any], bos_id: int) -> tuple[str, dict[str, Any]]:
    """The text of the document start, and the tokenizer that puts it before each text."""
    added: list[Any] = list(spec.get("added_tokens") or ())
    start = next((token["content"] for token in added if token["id"] == bos_id), None)
    if start is None:  # the id after the last, which the file lacks
        start = _START
        none = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added.append({"id": bos_id, "content": start, **none, "special": True})
    if start in json.dumps(spec.get("post_processor"), ensure_ascii=False):
        return start, spec
    first = {"SpecialToken": {"id": start, "type_id": 0}}
    text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    template = {
        "type": "TemplateProcessing",
        "single": [first, text],
        "pair": [first, text, second],
        "special_tokens": {start: {"id": start, "ids": [bos_id], "tokens": [start]}},
    }
    return start, spec | {"added_tokens": added, "post_processor": template}


def _of_bytes() -> dict[str, Any]:
    """A byte-level BPE without merges, whose id of a byte is the byte."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "normalizer": None,
        "pre_tokenizer": level | {"use_regex": False},
        "decoder": level | {"use_regex": False},
        "model": {"type": "BPE", "vocab": byte_alphabet(), "merges": []},
    }
