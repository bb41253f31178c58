"""Tokenizer files of every kind, trained on a few lines; not tests themselves."""

import io
import json
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

LINES = [
    f"def f{n}(x):  # é, e\u0301, 日本 and tabs\n\treturn x + {n * 37}, don't." for n in range(60)
]


def _sentencepiece(path: Path, **kwargs) -> str:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        **{"vocab_size": 340, "byte_fallback": True, "minloglevel": 2} | kwargs,
    )
    path.write_bytes(model.getvalue())
    return str(path)


def _saved(path: Path, model: tokenizers.Tokenizer, trainer) -> str:
    model.train_from_iterator(LINES, trainer)
    model.save(str(path))
    return str(path)


def _byte_level(path: Path) -> str:
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _saved(
        path,
        model,
        trainers.BpeTrainer(
            vocab_size=330,
            initial_alphabet=alphabet,
            show_progress=False,
            special_tokens=["<|endoftext|>"],
        ),
    )


def _byte_fallback(path: Path) -> str:
    """As Llama 2's: a space before a text, ▁ for spaces, byte fallback, one space stripped."""
    model = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    spaces = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    model.normalizer = normalizers.Sequence(spaces)
    parts = [
        decoders.Replace("\u2581", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    model.decoder = decoders.Sequence(parts)
    model.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")  # to train only
    raw = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<unk>", "<s>", "</s>", *raw],
        limit_alphabet=60,
        max_token_length=6,
        show_progress=False,
    )
    model.train_from_iterator(LINES, trainer)
    text = json.dumps(json.loads(model.to_str()) | {"pre_tokenizer": None}, separators=(",", ":"))
    for piece in raw:  # in Llama's file the bytes are ordinary pieces
        model_text = f'"content":"{piece}","single_word":false,"lstrip":false,"rstrip":false,'
        text = text.replace(
            model_text + '"normalized":false,"special":true',
            model_text + '"normalized":false,"special":false',
        )
    path.write_text(text, "utf-8")
    return str(path)


def _metaspace(path: Path) -> str:
    model = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    model.pre_tokenizer, model.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>"], show_progress=False
    )
    return _saved(path, model, trainer)


def _unigram(path: Path) -> str:
    model = tokenizers.Tokenizer(models.Unigram())
    model.pre_tokenizer, model.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False
    )
    return _saved(path, model, trainer)


def _word_piece(path: Path, *, decoder=None) -> str:
    model = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))  # pyright: ignore
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.decoder = decoder or decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=["[UNK]", "[CLS]"], show_progress=False
    )
    return _saved(path, model, trainer)


def _suffix(path: Path) -> str:
    model = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    model.pre_tokenizer, model.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=120,
        special_tokens=["<unk>", "<s>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    return _saved(path, model, trainer)


def _word_level(path: Path) -> str:
    model = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>"], show_progress=False)
    return _saved(path, model, trainer)


def _fused(path: Path) -> str:
    """Tidies up the whole text, so that nothing of it can be shown before its end."""
    parts = [decoders.WordPiece(), decoders.Fuse(), decoders.Replace(" .", "."), decoders.CTC()]
    return _word_piece(path, decoder=decoders.Sequence(parts))


EXACT = {"add_dummy_prefix": False, "remove_extra_whitespaces": False}
MAKERS = {
    "unigram.model": _sentencepiece,
    "bpe.model": lambda path: _sentencepiece(path, model_type="bpe", vocab_size=360),
    "identity.model": lambda path: _sentencepiece(
        path, normalization_rule_name="identity", bos_id=-1, **EXACT
    ),
    "byte_level.json": _byte_level,
    "byte_fallback.json": _byte_fallback,
    "metaspace.json": _metaspace,
    "unigram.json": _unigram,
    "word_piece.json": _word_piece,
    "suffix.json": _suffix,
    "word_level.json": _word_level,
    "fused.json": _fused,
}
KINDS = ("byte", *MAKERS)


def make(kind: str, folder: Path) -> str:
    """A tokenizer as `make_tokenizer` takes it."""
    return kind if kind == "byte" else MAKERS[kind](folder / kind)
