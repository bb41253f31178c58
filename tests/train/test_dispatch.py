"""A run compiles its step once, and dispatches the next one before it logs the one before."""

import jax
import pytest

from miras.train import program, train
from miras.train.loggers.jsonl import Metrics


@pytest.mark.slow
def test_the_step_is_compiled_once_and_logged_while_the_next_one_runs(
    tiny, tmp_path, monkeypatch, console
):
    events, compile_step, write = [], program.TrainingProgram.compile, Metrics.write

    def compile_recorded(self):
        step = compile_step(self)
        events.append("compile")

        def recorded(state, batches, alive):
            if events[-1] == "compile":
                with pytest.raises(TypeError, match="compiled"):
                    step(state, jax.tree.map(lambda x: x[..., 1:], batches), alive)
            events.append("run")
            return step(state, batches, alive)

        return recorded

    def write_recorded(self, step, kind, values):
        events.append((step, kind))
        write(self, step, kind, values)

    monkeypatch.setattr(program.TrainingProgram, "compile", compile_recorded)
    monkeypatch.setattr(Metrics, "write", write_recorded)
    train(tiny(steps=4, checkpoint_every=100), tmp_path / "run", console=console)
    last = [(4, "train"), (4, "health"), (4, "held_out")]
    first = [(0, "start"), "compile", "run", "run", "run", (2, "train"), "run"]
    assert events == [*first, *last]
