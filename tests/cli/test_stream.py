"""miras generate --session, miras stream and miras match, as a user gives them."""

import os
import signal

import numpy as np
import pytest

import miras
from miras.analysis.costs import costs
from miras.analysis.match import match, parse_size
from miras.analysis.stream import session_saver
from miras.cli.main import main
from miras.models import load_session
from miras.train import load_run
from tests.cli.test_main import SMALL
from tests.tolerances import tolerance

HALF_DIGIT = 0.5e-4  # of losses, which the commands print with four decimals
RUN = ("architecture=mac", "attention.segment=8", "attention.window=8", "data.sequence=32")


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
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
    text, whole = "".join(parts), whole.removesuffix("\n")
    assert whole.startswith(text)
    assert set(whole[len(text) :]) <= {"\ufffd"}  # a character that the next call completes
    assert load_session(path, load_run(run).model).tokens == 1 + 7 + 13


@pytest.mark.slow
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
    assert [row[0] for row in rows] == 3 * spans  # of losses, of health, and of gates
    for (first, last), row in zip(((0, 1023), (1023, 2047), (2047, 2640)), rows):
        rounded = tolerance(np.float32, 2640, 4) * np.abs(logits).max()
        assert float(row[2]) == pytest.approx(losses[first:last].mean(), abs=HALF_DIGIT + rounded)
    kept = load_session(session, model)
    assert kept.tokens == len(data) + 1
    np.testing.assert_allclose(kept.logits[0], logits[0, -1], atol=rounded)
    norms, state = [], None  # of calls of 1,024 tokens, as the buckets are
    for first in range(0, 2641, 1024):
        _, state, found = model.observe(ids[:, first : first + 1024], state=state)
        norms.append(float(found.memory_norm.mean()))
    np.testing.assert_allclose([float(row[2]) for row in rows[3:6]], norms, rtol=2e-3)


@pytest.mark.slow
def test_streaming_goes_on_from_a_session(run, tmp_path, capsys):
    data = b"see the old sea again\n" * 90
    for name, part in (("whole", data), ("first", data[:1100]), ("second", data[1100:])):
        (tmp_path / name).write_bytes(part)
    one, two = tmp_path / "one.session", tmp_path / "two.session"
    whole = written(capsys, "stream", run, tmp_path / "whole", "--session", one)
    first = written(capsys, "stream", run, tmp_path / "first", "--session", two)
    second = written(capsys, "stream", run, tmp_path / "second", "--session", two)
    table = lambda told: [x.split() for x in told.splitlines() if x.strip()[:1].isdigit()]  # noqa: E731
    losses = {row[0]: row for row in table(first)[:2]}
    spans = [row[0] for row in (*table(first)[:2], table(second)[0])]
    assert spans == ["1-1,023", "1,024-1,100", "1,101-1,980"]
    (whole_first, whole_second), parts = table(whole)[:2], table(second)[0]
    assert losses["1-1,023"] == whole_first
    tokens = [int(row[1]) for row in (losses["1,024-1,100"], parts)]
    assert sum(tokens) == int(whole_second[1])
    nats = [n * float(row[2]) for n, row in zip(tokens, (losses["1,024-1,100"], parts))]
    model = load_run(run).model
    ends = [load_session(path, model) for path in (one, two)]
    assert ends[0].tokens == ends[1].tokens == len(data) + 1
    close = tolerance(np.float32, 1980, 4) * float(np.abs(ends[0].logits).max())
    printed = 2 * HALF_DIGIT + close  # both sides are printed
    assert sum(nats) / sum(tokens) == pytest.approx(float(whole_second[2]), abs=printed)
    np.testing.assert_allclose(ends[0].logits, ends[1].logits, atol=close)


def stopped(monkeypatch, pieces: int, stop) -> None:
    """Saves after every piece, and calls `stop` once so many were saved."""
    monkeypatch.setattr(session_saver, "PAUSE", 0.0)
    monkeypatch.setattr(session_saver, "_SHARE", 0.0)
    save, done = session_saver.save_session, []

    def counted(*args):
        save(*args)
        done.append(args)
        if len(done) == pieces:
            stop()

    monkeypatch.setattr(session_saver, "save_session", counted)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "signal"])
def test_a_reading_that_was_stopped_goes_on(run, tmp_path, capsys, monkeypatch, how):
    path, one, two = tmp_path / "text", tmp_path / "one", tmp_path / "two"
    path.write_text("see the old sea 🌊 again\n" * 150)
    whole = written(capsys, "stream", run, path, "--session", one)
    argv = ("stream", str(run), str(path), "--session", str(two))
    for _ in range(2):  # after each of the first two pieces
        with monkeypatch.context() as patch:
            if how == "signal":
                stopped(patch, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
                assert main(argv) == 130
                told = capsys.readouterr()
                assert "the same command resumes" in told.err
            else:
                stopped(patch, 1, lambda: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    main(argv)
                capsys.readouterr()
    assert load_session(two, load_run(run).model).tokens == 2048
    monkeypatch.undo()
    path.write_text("another text " * 400)
    assert main(argv) == 2
    assert "of another text" in capsys.readouterr().err
    path.write_text("see the old sea 🌊 again\n" * 150)
    assert written(capsys, *argv) == whole
    ends = [load_session(file, load_run(run).model) for file in (one, two)]
    assert ends[0].tokens == ends[1].tokens
    np.testing.assert_array_equal(ends[0].logits, ends[1].logits)


def test_a_prompt_may_hold_any_bytes(run, capsys):
    told = written(capsys, "generate", run, "--prompt", "\udcff\udcfex", "--length", 0)
    assert told == "\ufffd\ufffdx\n"


def test_a_model_is_matched_to_a_size(capsys):
    told = written(capsys, "match", "titans_mac", "--params", "2M", "layers=2")
    words = told.partition("#")[0].split()[3:]
    config = miras.override(miras.preset("titans_mac"), *words)
    assert costs(config).parameters == pytest.approx(2e6, rel=0.01)
    assert f"{costs(config).parameters:,}" in told
    kept = match(miras.preset("yaad"), 1_500_000, fixed_width=True)
    assert kept.width == miras.preset("yaad").width
    assert parse_size("1.3B") == 1_300_000_000


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["match", "yaad", "--params", "many"], ["'many'", "25M"]),
        (["match", "yaad", "--params", "2k"], ["within 1 %", "2,000"]),
        (["match", "yaad=1", "--params", "2M"], ["is not a preset"]),
        (["match", "yad", "--params", "2M"], ["did you mean 'yaad'"]),
        (["stream", "RUN", "/no/such/file"], ["/no/such/file is not a file"]),
        (["stream", "RUN", "EMPTY"], ["is empty"]),
        (["generate", "RUN", "--session", ""], ["session's path is empty"]),
        (["generate", "RUN", "--session", "/no/such/file"], ["no folder /no/such"]),
        (["stream", "RUN", "TEXT", "--session", "/no/such/file"], ["no folder /no/such"]),
        (["stream", "RUN", "TEXT", "--session", "FOLDER"], ["is a folder"]),
        (["generate", "RUN", "--session", "EMPTY"], ["truncated or damaged"]),
        (["train", "titans_mac", "attention.window=65"], ["window=65", "segment=64", "at most 64"]),
        (["train", "titans_mac", "chunk=48"], ["segment=64", "chunk=48"]),
        (["train", "yaad", "pattern=M X"], ["'M X'", "S (sliding-window attention)"]),
        (["train", "yaad", "pattern=MMS"], ["layers=4", "multiple of the 3 letters"]),
        (["train", "transformer", "architecture=mag"], ["'mag'", "'kv'"]),
        (["train", "titans_mac", "data.sequence=96"], ["data.sequence=96", "align=64"]),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(run, argv, named, refused, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("see")
    place = {"RUN": run, "EMPTY": tmp_path / "empty", "TEXT": tmp_path / "text", "FOLDER": tmp_path}
    if argv[0] == "train":
        argv = [*argv, "--out", str(tmp_path / "out")]
    told = refused(*(str(place.get(word, word)) for word in argv))
    for word in named:
        assert word in told
    assert not (tmp_path / "out" / "config.json").exists()
