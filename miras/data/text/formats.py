"""Recognises file formats that are not text by their first bytes, whatever the suffix.

`text_file` opens files; `records` reads the rows of JSON lines and Parquet.
"""

import re
from typing import NamedTuple

HEAD_BYTES = 8192
"""Number of bytes at the start of a file that are inspected."""

_UNPACK = "unpack it and give the folder"
_SAVE_AS_TEXT = "save its content as text"
_RENAME = "rename it so that its name ends in"


class Format(NamedTuple):
    """A format that is not read as text.

    Attributes:
        name: as in "2 zip archives"; the plural adds an s.
        fix: what to do instead.
    """

    name: str
    fix: str


_PICTURE = ("picture", "give the text that it shows")
_SOUND = ("recording", "give a transcript of it")
_PROGRAM = ("compiled program", "give its source code")
_SIGNATURES = {
    b"PK\x03\x04": ("zip archive", f"{_UNPACK} (an office document or an EPUB: {_SAVE_AS_TEXT})"),
    b"PK\x05\x06": ("zip archive", _UNPACK),
    b"PK\x07\x08": ("zip archive", _UNPACK),
    b"\x1f\x8b": ("gzip file", f"{_RENAME} .gz"),
    b"BZh": ("bzip2 file", f"{_RENAME} .bz2"),
    b"\xfd7zXZ\0": ("xz file", f"{_RENAME} .xz"),
    b"\x28\xb5\x2f\xfd": ("zstandard file", f"{_RENAME} .zst"),
    b"\x04\x22\x4d\x18": ("lz4 file", "decompress it"),
    b"7z\xbc\xaf\x27\x1c": ("7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("RAR archive", _UNPACK),
    b"%PDF-": ("PDF document", "extract its text, for example with pdftotext"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("office document", _SAVE_AS_TEXT),
    b"{\\rtf": ("RTF document", _SAVE_AS_TEXT),
    b"PAR1": ("Parquet file", "give it as a plain .parquet file"),
    b"PARE": ("encrypted Parquet file", "decrypt it"),
    b"ARROW1\0\0": ("Arrow file", "write its rows to a Parquet or .jsonl file"),
    b"FEA1": ("Feather file", "write its rows to a Parquet or .jsonl file"),
    b"Obj\x01": ("Avro file", "write its rows to a Parquet or .jsonl file"),
    b"SQLite format 3\0": ("SQLite database", "write its rows to a .jsonl file"),
    b"\x89HDF\r\n\x1a\n": ("HDF5 file", "write its texts to a .jsonl file"),
    b"\x93NUMPY": ("NumPy array", "write its texts to a .jsonl file"),
    b"GGUF": ("GGUF model", "give text, not a model"),
    # A Riegeli file's first block, as array_record writes it.
    bytes.fromhex("83af70d10d884a3f00000000000000004000000000000000"): (
        "ArrayRecord file",
        "give the data set that it belongs to as 'tfds:NAME'",
    ),
    b"\x89PNG\r\n\x1a\n": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"GIF87a": _PICTURE,
    b"GIF89a": _PICTURE,
    b"II*\0": _PICTURE,
    b"MM\0*": _PICTURE,
    b"ID3": _SOUND,
    b"fLaC": _SOUND,
    b"OggS": _SOUND,
    b"\x7fELF": _PROGRAM,
    b"\0asm": _PROGRAM,
    b"\xca\xfe\xba\xbe": _PROGRAM,
    b"\xcf\xfa\xed\xfe": _PROGRAM,
}
# Signatures with which text may begin, and patterns that only the format matches.
_SURE = {
    b"BZh": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    b"ID3": rb"ID3[\x02-\x04][\0-\x0f]",
    b"GGUF": rb"GGUF[\x01-\x1f]\0\0",
    b"OggS": rb"OggS\0",
    b"PAR1": rb"PAR1[\x15\x19\x1c\0]",
    b"PARE": rb"PARE.*[\0-\x08]",
    b"FEA1": rb"FEA1.*\0",
}
_PICKLE = re.compile(rb"\x80[\x02-\x05][\x95\x8a(}\]K-Zcq\x80-\x8f]")


def recognise(head: bytes) -> Format | None:
    """The format of a file by its first `HEAD_BYTES`; None if it may be text."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n") if b"%PDF-" in head[:64] else head
    for signature, found in _SIGNATURES.items():
        if start.startswith(signature):
            sure = _SURE.get(signature)
            if sure is None or re.match(sure, start[:64], re.DOTALL):
                return Format(*found)
    if head[257:262] == b"ustar":
        return Format("tar archive", _UNPACK)
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE", b"AVI "):
        return Format(*(_PICTURE if head[8:12] == b"WEBP" else _SOUND))
    if head[4:8] == b"ftyp" and head[:2] == b"\0\0":
        return Format(*_SOUND)
    if head[:2] == b"MZ" and b"\0" in head[:64]:
        return Format(*_PROGRAM)
    if _PICKLE.match(head):
        return Format("pickle", "write its texts to a .jsonl file")
    if head[8:10] == b'{"' and 2 <= int.from_bytes(head[:8], "little") < 2**27:
        return Format("safetensors file", "give text, not the parameters of a model")
    if _is_tfrecord(head):
        return Format(
            "TFRecord file", "prepare the data set in array_record format and give 'tfds:NAME'"
        )
    if encoding := _unmarked(head):
        return Format(
            f"unmarked {encoding} file",
            f"convert it with iconv -f {encoding} -t UTF-8",
        )
    return None


def _is_tfrecord(head: bytes) -> bool:
    """Whether a file starts with a length and the masked CRC-32C of it, as TFRecords do."""
    if len(head) < 12:
        return False
    crc = 0xFFFFFFFF
    for byte in head[:8]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked == int.from_bytes(head[8:12], "little")


def _unmarked(head: bytes) -> str | None:
    """The encoding of mostly Latin UTF-16 without a mark: one byte of each pair is NUL."""
    pairs = len(head) // 2
    if pairs < 8:
        return None
    for high, encoding in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        zeros = head[high : 2 * pairs : 2].count(0)
        low = head[1 - high : 2 * pairs : 2]
        printable = sum(byte >= 32 or byte in b"\t\n\r\f" for byte in low)
        if zeros > 0.7 * pairs and printable > 0.95 * pairs:
            return encoding
    return None
