"""What is due after a step: logging, evaluation, and checkpoints, also by the clock.

All processes of a run save at the same steps, and their clocks differ, so process 0 decides. A
collective would make the host wait for the devices. Instead process 0 publishes, before it
dispatches a step, whether the clock asks for a checkpoint after the next one, and the others read
that after they have dispatched the next one (`processes.Board`): no one waits.
"""

from collections.abc import Callable
from typing import NamedTuple

from miras.runtime import processes
from miras.train.config import TrainConfig


class Due(NamedTuple):
    """What is due after a step."""

    log: bool
    held_out: bool
    health: bool
    save: bool
    profile: bool = False  # a trace begins or ends, which waits for the devices

    @property
    def now(self) -> bool:
        """Whether something needs the state after the step, before the next one."""
        return self.held_out or self.health or self.save or self.profile


class Timetable:
    """What is due after each step of a run.

    All processes must call `announce` and `due` for the same steps, in order.

    Args:
        recipe: of the training.
        age: returns the seconds since the last checkpoint.
    """

    def __init__(self, recipe: TrainConfig, age: Callable[[], float]):
        self._recipe, self._age = recipe, age
        self._several = processes.count() > 1
        self._board = processes.Board() if self._several else None
        self._told = 0  # the last step after which process 0 has asked for a checkpoint

    def announce(self, step: int) -> None:
        """Publish in process 0 whether the clock asks for a checkpoint after a step.

        It must be called before the step before it is dispatched. In a run of one process, it does
        nothing.
        """
        if self._board is None or not self._may_ask(step) or not processes.first():
            return
        just_saved = self._told == step - 1 or self.by_step(step - 1).save
        late = self._is_late() and not just_saved
        if late:
            self._told = step
        self._board.publish(step, "save" if late else "")

    def due(self, step: int) -> Due:
        """What is due after a step, before a signal is considered.

        Raises:
            jax.errors.JaxRuntimeError: process 0 has ended.
        """
        due = self.by_step(step)
        if self._board is None:
            return due._replace(save=due.save or self._is_late())
        if self._may_ask(step):
            due = due._replace(save=self._board.read(step) == "save" or due.save)
        return due

    def by_step(self, step: int) -> Due:
        """What is due by the number of the step alone."""
        recipe = self._recipe
        last = step == recipe.steps
        return Due(
            log=last or step % recipe.log_every == 0,
            held_out=last or step % recipe.eval_every == 0,
            health=last or step % recipe.health_every == 0,
            save=last or step % recipe.checkpoint_every == 0,
        )

    def _may_ask(self, step: int) -> bool:
        """Whether several processes may save by the clock: where they log, to publish less."""
        due = self.by_step(step)
        return self._recipe.checkpoint_minutes is not None and (due.log or due.now)

    def _is_late(self) -> bool:
        minutes = self._recipe.checkpoint_minutes
        return minutes is not None and self._age() >= 60 * minutes
