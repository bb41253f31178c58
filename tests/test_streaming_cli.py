"""miras generate --session, miras stream and miras match, as a user gives them."""

import numpy as np
import pytest

import miras
from miras.cli import main
from miras.costs import costs
from miras.match import match, number
from miras.models import load_session
from miras.train import load_run
from tests.test_cli import SMALL, cache, text  # noqa: F401  (fixtures)

RUN = ("architecture=mac", "attention.segment=8", "attention.window=8", "data.sequence=32")


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("runs") / "mac"
    words = [word for word in SMALL if not word.startswith("data.sequence")]
    assert main(["train", "yaad", "--data", str(text), *words, *RUN, "--out", str(out)]) == 0
    return out


def written(capsys, *argv) -> str:
    assert main([str(arg) for arg in argv]) == 0
    return capsys.readouterr().out


def test_a_session_goes_on_as_one_text(run, tmp_path, capsys):
    greedy = ("--temperature", 0)
    whole = written(capsys, "generate", run, "--prompt", "see the", "--length", 13, *greedy)
    path = tmp_path / "a.session"
    session = ("--session", path, *greedy)
    first = written(capsys, "generate", run, "--prompt", "see ", "--length", 0, *session)
    second = written(capsys, "generate", run, "--prompt", "the", "--length", 6, *session)
    third = written(capsys, "generate", run, "--length", 7, *session)
    parts = [part.removesuffix("\n") for part in (first, second, third)]
    assert "".join(parts) == whole.removesuffix("\n")
    assert load_session(path, load_run(run).model).tokens == 1 + 7 + 13


def test_a_streamed_text_is_the_text_read_at_once(run, tmp_path, capsys):
    model, tokenizer = (found := load_run(run)).model, found.tokenizer
    data = ("see the old sea again\n" * 120).encode()
    path, session = tmp_path / "long.txt", tmp_path / "read.session"
    path.write_bytes(data)
    told = written(capsys, "stream", run, path, "--session", session)
    ids = np.append(tokenizer.bos_id, tokenizer.encode(data))[None]
    logits = np.asarray(model(ids)[0], np.float64)
    log_z = np.log(np.exp(logits).sum(-1))[0, :-1]
    losses = log_z - np.take_along_axis(logits[0, :-1], ids[0, 1:, None], 1)[:, 0]
    rows = [line.split() for line in told.splitlines() if line.strip()[:1].isdigit()]
    spans = ["1-1,023", "1,024-2,047", "2,048-2,640"]
    assert [row[0] for row in rows] == spans + spans  # of losses, and of health
    for (first, last), row in zip(((0, 1023), (1023, 2047), (2047, 2640)), rows):
        assert float(row[2]) == pytest.approx(losses[first:last].mean(), abs=2e-4)
    kept = load_session(session, model)
    assert kept.tokens == len(data) + 1
    np.testing.assert_allclose(kept.logits[0], logits[0, -1], atol=1e-3)


def test_a_model_is_matched_to_a_size(capsys):
    told = written(capsys, "match", "titans_mac", "--params", "2M", "layers=2")
    words = told.partition("#")[0].split()[3:]
    config = miras.override(miras.preset("titans_mac"), *words)
    assert costs(config).parameters == pytest.approx(2e6, rel=0.01)
    assert f"{costs(config).parameters:,}" in told
    kept = match(miras.preset("yaad"), 1_500_000, fixed_width=True)
    assert kept.width == miras.preset("yaad").width
    assert number("1.3B") == 1_300_000_000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["match", "yaad", "--params", "many"], ["'many'", "25M"]),
        (["match", "yaad", "--params", "2k"], ["within 1 %", "2,000"]),
        (["match", "yaad=1", "--params", "2M"], ["where a preset has to"]),
        (["match", "yad", "--params", "2M"], ["did you mean 'yaad'"]),
        (["stream", "RUN", "/no/such/file"], ["/no/such/file is no file"]),
        (["stream", "RUN", "EMPTY"], ["is empty"]),
        (["generate", "RUN", "--session", ""], ["--session is empty"]),
        (["generate", "RUN", "--session", "EMPTY"], ["truncated or damaged"]),
        (["train", "titans_mac", "attention.window=65"], ["window=65", "segment=64", "at most 64"]),
        (["train", "titans_mac", "chunk=48"], ["segment=64", "chunk=48"]),
        (["train", "yaad", "pattern=M X"], ["'M X'", "S (sliding-window attention)"]),
        (["train", "yaad", "pattern=MMS"], ["layers=4", "multiple of the 3 layers"]),
        (["train", "transformer", "architecture=mag"], ["'mag'", "'kv'"]),
        (["train", "titans_mac", "data.sequence=96"], ["data.sequence=96", "align=64"]),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(run, argv, words, refused, tmp_path):
    (tmp_path / "empty").touch()
    place = {"RUN": str(run), "EMPTY": str(tmp_path / "empty")}
    if argv[0] == "train":
        argv = [*argv, "--out", str(tmp_path / "out")]
    told = refused(*(place.get(word, word) for word in argv))
    for word in words:
        assert word in told
    assert not (tmp_path / "out" / "config.json").exists()
