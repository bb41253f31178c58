"""The compiled program of a run: its model, optimiser, mesh and step, without data or files."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from miras.array_typing import Array
from miras.data.layout import row_layout
from miras.errors import ConfigError
from miras.layers.weight_gradients import summed_in
from miras.parallel.batches import field_sharding
from miras.train.compiler_options import compiler_options
from miras.train.config import RunConfig
from miras.train.loss import LossOptions
from miras.train.objective_of import objective_of
from miras.train.optimizer import axis_names, optimizer_of
from miras.train.sharding import check_fits, check_replicated, state_shardings
from miras.train.state import TrainState, abstract, create
from miras.train.state import structure as structure_of
from miras.train.step import Batch, StepMetrics, make_train_step

_UNKNOWN_OPTION = re.compile("No such compile option: '([^']*)'")


class TrainingProgram:
    """What a run computes on a mesh, whose devices need not exist: nothing is put on them.

    Args:
        config: the run.
        mesh: of `miras.parallel.make_mesh`, of devices or of a topology.

    Attributes:
        objective: the model, the loss and the metrics.
        layout: the arrays of a row.
        graphdef: the static structure of the model.
        params: the abstract parameters with their metadata.
        optimizer: of the parameters.
        shapes: the training state as shapes.
        shardings: of the training state.
        step: see `make_train_step`.

    Raises:
        ConfigError: the mesh does not divide what it splits, or would keep too much whole.
    """

    def __init__(self, config: RunConfig, mesh: Mesh):
        self.config, self.mesh = config, mesh
        check_fits(config, mesh.shape)
        recipe, data = config.train, config.data
        self.objective, self.layout = objective_of(data), row_layout(data)
        self.graphdef, self.params = structure_of(config.model, self.objective)
        self.optimizer = optimizer_of(recipe, self.params, data.batch * data.sequence)
        self.shapes = jax.eval_shape(self.create)
        self.shardings = state_shardings(mesh, axis_names(self.params), self.shapes)
        check_replicated(config.mesh, mesh, self.shapes, self.shardings)
        options = LossOptions(recipe.loss_chunk, recipe.z_loss, recipe.reduce)
        trained = summed_in(self.graphdef, self.params, recipe.reduce)
        self.step = make_train_step(
            trained, self.optimizer, self.shardings, options, self.objective
        )

    def create(self) -> TrainState:
        """The state before the first step; call it within `jax.jit` or `jax.eval_shape`."""
        recipe = self.config.train
        return create(self.config.model, self.optimizer, recipe.seed, recipe.master, self.objective)

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of arrays that every device has whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def inputs(self) -> tuple[Any, ...]:
        """The shapes and shardings of the arguments of `step`."""
        before = (self.config.train.accumulate, self.config.data.batch)
        batches = {
            name: jax.ShapeDtypeStruct(
                (*before, *field.shape), field.dtype, sharding=field_sharding(self.mesh, field, 1)
            )
            for name, field in self.layout.items()
        }
        alive = jax.ShapeDtypeStruct((), jnp.bool_, sharding=self.replicated)
        return abstract(self.shapes, self.shardings), batches, alive

    def trace(self) -> Any:
        """The step, traced: `.jaxpr` has its equations, for one of the devices where it is split.

        jax traces it once, as long as the program is kept.
        """
        with jax.set_mesh(self.mesh):
            return self.step.trace(*self.inputs())

    def lower(self) -> Any:
        """The step, lowered for the devices of the mesh: `.compile()` compiles it ahead."""
        platform = self.mesh.devices.flat[0].platform
        absent = platform != jax.default_backend()  # the devices of a topology
        traced = self.trace()
        with jax.set_mesh(self.mesh):
            return traced.lower(lowering_platforms=(platform,) if absent else None)

    def compile(self) -> Callable[[TrainState, Batch, Array], tuple[TrainState, StepMetrics]]:
        """The compiled step. It never compiles again: other shapes or shardings are an error.

        Raises:
            ConfigError: `train.compiler_options` has a name that the compiler does not know.
        """
        options: Any = compiler_options(
            self.mesh, self.config.mesh.slices, self.config.train.compiler_options
        )
        try:
            return self.lower().compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if found := _UNKNOWN_OPTION.search(str(error)):
                raise ConfigError(
                    f"the compiler of this device has no option {found[1]!r}: correct it in "
                    'train.compiler_options, or remove it by the value "".'
                ) from error
            raise
