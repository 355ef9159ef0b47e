"""The compiled programs of one workload: one for each batch size and number of slots, made in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgdscope.training.compiler import Compiler
from sgdscope.training.functions import check_functions
from sgdscope.training.noise import add_small_batch, add_small_batches, no_sums
from sgdscope.training.state import Settings, State
from sgdscope.training.trial import evaluated, measure, one_update, start, train, train_once
from sgdscope.workloads.base import Batch, Workload

Method = Literal["map", "vmap", "step"]
# A batch size stands for the program that trains at it.
Program = int | Literal["start", "measure", "noise"]


class Programs:
    """Says what each program is, and has it compiled.

    Args:
        workload: the model and its data.
        splits: the data as they lie on the devices.
        mesh: the devices, with the axes ``trial`` and ``batch``.
        method: how the trials of a device are trained.
        microbatch_sizes: the examples of a forward pass for each batch size that has microbatches.
        compute_dtype: of the products of gradients.
    """

    def __init__(
        self,
        workload: Workload,
        splits: Mapping[str, Batch],
        mesh: Mesh,
        method: Method,
        microbatch_sizes: Mapping[int, int],
        compute_dtype: str,
    ) -> None:
        self.by_trial = NamedSharding(mesh, PartitionSpec("trial"))
        self._workload, self._splits, self._mesh, self._method = workload, splits, mesh, method
        self._microbatch_sizes, self._compute_dtype = microbatch_sizes, compute_dtype
        self.compiler = Compiler(mesh.devices.flat[0].platform)
        self._state = check_functions(workload)

    def prepare(self, program: Program, slots: int) -> Future[Any]:
        """Begin to compile a program for packs of so many slots in the background, unless that has been done."""
        return self.compiler.prepare((program, slots), partial(self._compile, program, slots))

    def state_shapes(self, slots: int, batch_size: int | None) -> State:
        """Return the shapes of a pack's state, with what its streams carry at a batch size."""
        state = self._state
        if self._workload.streams is not None and batch_size is not None:
            carry = partial(self._workload.streams.carry, batch_size // self._workload.unroll)
            state = replace(state, model=jax.eval_shape(carry))
        shapes: State = jax.tree.map(lambda a: self._shape(slots, a.shape, a.dtype), state)
        return shapes

    def _compile(self, program: Program, slots: int) -> Any:
        shape = partial(self._shape, slots)
        settings = Settings(*(shape((), dtype) for dtype in (np.float32, np.float32, np.uint32, np.int32)))
        trial, copied = PartitionSpec("trial"), PartitionSpec()
        if program == "start":
            body: Callable[..., Any] = lambda settings: self._each(partial(start, self._workload))(settings)
            specs: Any = (trial,)
            arguments: Any = (settings,)
        elif program == "measure":
            model = evaluated(self._workload, self.state_shapes(slots, None))
            body = lambda splits, model, wanted: self._each(partial(measure, self._workload, splits))(model, wanted)
            specs = (copied, trial, trial)
            arguments = (self._splits, model, shape((), np.bool_))
        elif program == "noise":
            add = partial(add_small_batch if self._method == "step" else add_small_batches, self._workload)
            body = lambda split, *of_trial: self._each(partial(add, split))(*of_trial)
            specs = (copied, trial, trial, trial, trial)
            sums = jax.tree.map(lambda a: shape(a.shape, a.dtype), no_sums(self._state.parameters))
            arguments = (self._splits["train"], settings, self.state_shapes(slots, None), sums, shape((), np.int32))
        else:
            sizes = (program, self._microbatch_sizes.get(program, program))
            advance = train_once if self._method == "step" else train

            def trained(split: Any, settings: Settings, state: State, end: Any) -> State:
                update = one_update(self._workload, sizes, split, settings, self._spread, self._compute_dtype)
                return advance(update, state, end)

            body = lambda split, *of_trial: self._each(partial(trained, split))(*of_trial)
            specs = (copied, trial, trial, trial)
            arguments = (self._splits["train"], settings, self.state_shapes(slots, program), shape((), np.int32))
        # The state of a pack is taken over by the next segment rather than copied.
        donated = (2,) if isinstance(program, int) else ()

        def lower() -> Any:
            sharded = jax.shard_map(
                body, mesh=self._mesh, in_specs=specs, out_specs=trial, axis_names={"trial"}, check_vma=False
            )
            return jax.jit(sharded, donate_argnums=donated).lower(*arguments)

        name = f"batch size {program}" if isinstance(program, int) else program
        return self.compiler.compile(f"{name}, {slots} slots", lower, quickly=not isinstance(program, int))

    def _each(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if self._method == "vmap":
            return jax.vmap(function)
        if self._method == "step":  # one trial a device, and no loop around it
            return lambda *args: jax.tree.map(lambda a: a[None], function(*jax.tree.map(lambda a: a[0], args)))
        return lambda *args: jax.lax.map(lambda each: function(*each), args)

    def _spread(self, tree: Any) -> Any:
        """Split arrays by their first axis among the devices that share a trial."""
        if self._mesh.shape["batch"] == 1:
            return tree
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, PartitionSpec("batch")), tree)

    def _shape(self, slots: int, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((slots, *shape), dtype, sharding=self.by_trial)
