"""Tokenizers: bytes exactly, and files trained on the fly by both libraries."""

import io
import sys

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from miras.data import ByteTokenizer, DataConfig, make_loader, make_tokenizer
from miras.data.text.corpus import open_documents
from miras.data.tokenized import tokenize
from miras.errors import ConfigError

LINES = [f"def f{n}(x):  # é, 日本 and tabs\n\treturn x + {n * 37}" for n in range(60)]
TEXT = "\n".join(LINES)


def sentencepiece_model(path, **kwargs):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=model,
        vocab_size=330,
        byte_fallback=True,
        minloglevel=2,
        **kwargs,
    )
    path.write_bytes(model.getvalue())
    return str(path)


def exact(path):
    return sentencepiece_model(
        path,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        bos_id=-1,
    )


def byte_level(path, **kwargs):
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        **kwargs,
    )
    model.train_from_iterator([TEXT], trainer)
    model.save(str(path))
    return str(path)


def metaspace(path):
    model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    model.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>", "<s>"], show_progress=False
    )
    model.train_from_iterator([TEXT], trainer)
    model.save(str(path))
    return str(path)


MAKERS = {
    "exact.model": exact,
    "default.model": sentencepiece_model,
    "bytes.json": byte_level,
    "meta.json": metaspace,
}


@pytest.fixture(params=MAKERS)
def trained(request, tmp_path):
    return make_tokenizer(MAKERS[request.param](tmp_path / request.param))


@given(st.binary())
def test_bytes_round_trip(text):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.tolist() == list(text)
    assert tokenizer.decode_bytes([256, *ids, 256, 300]) == text
    assert tokenizer.decode(ids) == text.decode("utf-8", errors="replace")


def test_byte_lengths_count_the_document_start_as_nothing():
    tokenizer = make_tokenizer("byte")
    assert (tokenizer.vocab_size, tokenizer.bos_id) == (257, 256)
    assert tokenizer.byte_lengths.shape == (257,)
    assert tokenizer.byte_lengths.dtype == np.float32
    assert tokenizer.byte_lengths[:256].tolist() == [1] * 256
    assert tokenizer.byte_lengths[256] == 0


@pytest.mark.parametrize("name", ["exact.model", "bytes.json"])
@pytest.mark.parametrize("text", [TEXT, "", "a", "  two  spaces ", "emoji 🎉 and ß\n\n"])
def test_exact_files_round_trip_and_count_every_byte(tmp_path, name, text):
    tokenizer = make_tokenizer(MAKERS[name](tmp_path / name))
    ids = tokenizer.encode(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode(text).tolist() == ids.tolist()
    assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
    assert tokenizer.decode_bytes(np.append(ids, tokenizer.bos_id)) == text.encode()
    # Concatenating pieces is decoding: what a generator that prints as it goes relies on.
    assert b"".join(tokenizer.decode_bytes([i]) for i in ids) == text.encode()


def test_common_contract_of_files(trained):
    assert 0 <= trained.bos_id < trained.vocab_size == len(trained.byte_lengths)
    assert trained.byte_lengths.dtype == np.float32
    assert trained.byte_lengths[trained.bos_id] == 0
    ids = trained.encode("return x + 37")
    assert ids.dtype == np.int32
    assert trained.bos_id not in ids
    assert ids.max() < trained.vocab_size
    assert trained.decode(ids) == "return x + 37"


def test_the_document_start_is_the_files_own_where_it_has_one(tmp_path):
    with_start = make_tokenizer(sentencepiece_model(tmp_path / "a.model"))
    assert (with_start.bos_id, with_start.vocab_size) == (1, 330)
    without = make_tokenizer(exact(tmp_path / "b.model"))
    assert (without.bos_id, without.vocab_size) == (330, 331)
    special = make_tokenizer(byte_level(tmp_path / "c.json", special_tokens=["<|endoftext|>"]))
    assert special.bos_id == 0
    none = make_tokenizer(byte_level(tmp_path / "d.json"))
    assert none.bos_id == none.vocab_size - 1
    prints = {t.fingerprint for t in (with_start, without, special, none, ByteTokenizer())}
    assert len(prints) == 5


def test_a_documents_target_bytes_sum_to_its_size_whatever_is_normalised_away(trained):
    text = ("  spaces   that a normaliser drops, ﬁ and é\n" * 20).encode()
    document = tokenize(text, trained)
    assert document.tokens[0] == trained.bos_id
    assert len(document.tokens) == len(document.byte_lengths) + 1
    np.testing.assert_allclose(
        document.byte_lengths.sum(dtype=np.float64), len(text), rtol=1e-6 * len(text) ** 0.5
    )


@pytest.mark.parametrize("name", ["exact.model", "bytes.json"])
def test_a_loader_with_a_file_spells_the_documents(tmp_path, cache, name):
    (tmp_path / "texts").mkdir()
    for n in range(12):
        (tmp_path / "texts" / f"{n}.txt").write_text("\n".join(LINES[n::12]), "utf-8")
    path = MAKERS[name](tmp_path / name)
    config = DataConfig(
        source=str(tmp_path / "texts"), tokenizer=path, sequence=16, validation=0.3, cache=cache
    )
    documents = list(open_documents(config, "validation"))
    batches = list(make_loader(config, "validation", align=8))
    ids = np.concatenate([batch["targets"][batch["mask"]] for batch in batches])
    assert make_tokenizer(path).decode_bytes(ids) == b"".join(documents)
    assert sum(b["target_bytes"].sum() for b in batches) == sum(map(len, documents))


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.model", b"not a model", "SentencePiece"),
        ("empty.model", b"", "SentencePiece"),
        ("a.json", b"{", "Hugging Face"),
        ("b.json", b'{"model": 3}', "Hugging Face"),
        ("c.json", b"\xff\xfe", "Hugging Face"),
    ],
)
def test_an_undecodable_file_is_refused(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}' cannot be read as a {kind}"):
        make_tokenizer(str(tmp_path / name))


def test_a_missing_file_or_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.model' does not exist"):
        make_tokenizer(str(tmp_path / "none.model"))
    with pytest.raises(ConfigError, match=r"'bpe' is unknown.*'byte'"):
        make_tokenizer("bpe")


@pytest.mark.parametrize(
    ("package", "suffix"), [("sentencepiece", "model"), ("tokenizers", "json")]
)
def test_a_missing_library_is_named(tmp_path, monkeypatch, package, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"'{package}'.*pip install {package}"):
        make_tokenizer(str(tmp_path / f"a.{suffix}"))
