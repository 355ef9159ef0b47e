"""The programs of a pack: each a value that says what it is made for and can be lowered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sgdscope.optimizers import Optimizer
from sgdscope.training.noise_scale import add_small_batch, no_sums
from sgdscope.training.sharpness import add_product, no_products
from sgdscope.training.step import (
    Kind,
    Recipe,
    Settings,
    State,
    evaluated,
    goes_on,
    measure,
    once,
    one_update,
    repeated,
    start,
)  # fmt: skip
from sgdscope.training.traced import TracedWorkload
from sgdscope.workloads.base import Batch

T = TypeVar("T")
TRIAL, COPIED = PartitionSpec("trial"), PartitionSpec()


@dataclass(frozen=True, eq=False)
class Devices:
    """How packs lie on the devices, and how their trials are trained there.

    Args:
        traced: the workload.
        splits: its data as they lie on the devices.
        mesh: the devices, with the axes ``trial`` and ``batch``.
        batching: whether a device trains its trials one after the other (``map``) or all at once (``vmap``).
        loop: whether a call makes many updates (``inside``) or one (``outside``).
        compute_dtype: of the products of gradients.
    """

    traced: TracedWorkload
    splits: Mapping[str, Batch]
    mesh: Mesh
    batching: Literal["map", "vmap"]
    loop: Literal["inside", "outside"]
    compute_dtype: str = "float32"

    def repeat(self, advance: Callable[[T], T], goes_on: Callable[[T], Any], state: T) -> T:
        """Return a state that is advanced inside the program for as long as it goes on, or once."""
        return (once if self.loop == "outside" else repeated)(advance, goes_on, state)

    @property
    def by_trial(self) -> NamedSharding:
        """Where an array lies whose first axis is that of the trials."""
        return NamedSharding(self.mesh, TRIAL)

    def shape(self, slots: int, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        """Return the shape of an array with one entry a trial."""
        return jax.ShapeDtypeStruct((slots, *shape), dtype, sharding=self.by_trial)

    def settings(self, optimizer: Optimizer, slots: int) -> Settings:
        """Return the shapes of a pack's settings."""
        number = self.shape(slots, (), np.float32)
        coefficients = dict.fromkeys(optimizer.coefficients(1), number)
        return Settings(number, coefficients, self.shape(slots, (), np.uint32), self.shape(slots, (), np.int32))

    def state(self, optimizer: Optimizer, slots: int, batch_size: int | None = None) -> State:
        """Return the shapes of a pack's state, with what its streams carry at a batch size."""
        workload = self.traced.workload
        settings = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), self.settings(optimizer, 1))
        state: State = jax.eval_shape(partial(start, workload, optimizer), settings)
        if workload.streams is not None and batch_size is not None:
            state = replace(state, model=jax.eval_shape(partial(workload.streams.carry, batch_size // workload.unroll)))
        shapes: State = jax.tree.map(lambda a: self.shape(slots, a.shape, a.dtype), state)
        return shapes

    def each(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of one trial as one of all the trials of a device."""
        if self.batching == "vmap":
            return jax.vmap(function)
        if self.loop == "outside":  # one trial a device, and no loop around it
            return lambda *args: jax.tree.map(lambda a: a[None], function(*jax.tree.map(lambda a: a[0], args)))
        return lambda *args: jax.lax.map(lambda each: function(*each), args)

    def spread(self, tree: Any) -> Any:
        """Split arrays by their first axis among the devices that share a trial."""
        if self.mesh.shape["batch"] == 1:
            return tree
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, PartitionSpec("batch")), tree)

    def lowered(self, body: Callable[..., Any], specs: Any, arguments: Any, donated: tuple[int, ...] = ()) -> Any:
        """Return a function of all trials, lowered for these arguments; each device takes its own trials."""
        # What ``check_vma`` would check, that an output without a sharding is the same everywhere, none of ours has.
        sharded = jax.shard_map(
            body, mesh=self.mesh, in_specs=specs, out_specs=TRIAL, axis_names={"trial"}, check_vma=False
        )
        return jax.jit(sharded, donate_argnums=donated).lower(*arguments)


@dataclass(frozen=True)
class Start:
    """Begin the trials of a pack."""

    optimizer: Optimizer
    slots: int
    runs_once = True

    def lower(self, devices: Devices) -> Any:
        """Return the program, traced and lowered."""
        begin = partial(start, devices.traced.workload, self.optimizer)
        return devices.lowered(devices.each(begin), (TRIAL,), (devices.settings(self.optimizer, self.slots),))

    def __str__(self) -> str:
        return f"start {self.optimizer.family}, pack size {self.slots}"


@dataclass(frozen=True)
class Update:
    """Train the trials of a pack."""

    kind: Kind
    slots: int
    runs_once = False

    def lower(self, devices: Devices) -> Any:
        """Return the program, traced and lowered."""
        recipe = Recipe(devices.traced.workload, self.kind, devices.compute_dtype)

        def trained(split: Any, settings: Settings, state: State, end: Any) -> State:
            return devices.repeat(one_update(recipe, split, settings, devices.spread), partial(goes_on, end), state)

        body = lambda split, *of_trial: devices.each(partial(trained, split))(*of_trial)
        optimizer, slots = self.kind.optimizer, self.slots
        arguments = (
            devices.splits["train"],
            devices.settings(optimizer, slots),
            devices.state(optimizer, slots, self.kind.batch_size),
            devices.shape(slots, (), np.int32),
        )
        # The state of a pack is taken over by the next segment rather than copied.
        return devices.lowered(body, (COPIED, TRIAL, TRIAL, TRIAL), arguments, donated=(2,))

    def __str__(self) -> str:
        return f"batch size {self.kind.batch_size}, pack size {self.slots}"


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the trials of a pack on all splits."""

    slots: int
    runs_once = True

    def lower(self, devices: Devices) -> Any:
        """Return the program, traced and lowered."""
        workload, shapes = devices.traced.workload, devices.traced.shapes
        body = lambda splits, model, wanted: devices.each(partial(measure, workload, splits))(model, wanted)
        model = evaluated(workload, shapes.parameters, shapes.model)
        model = jax.tree.map(lambda a: devices.shape(self.slots, a.shape, a.dtype), model)
        arguments = (devices.splits, model, devices.shape(self.slots, (), np.bool_))
        return devices.lowered(body, (COPIED, TRIAL, TRIAL), arguments)

    def __str__(self) -> str:
        return f"evaluate, pack size {self.slots}"


# What is estimated beside training: how the next part is added to its sums, and the sums before the first.
ESTIMATES: Mapping[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "noise scale": (add_small_batch, no_sums),
    "sharpness": (add_product, no_products),
}


@dataclass(frozen=True)
class Estimate:
    """Estimate, of the trials of a pack, one of :data:`ESTIMATES`."""

    of: str
    optimizer: Optimizer
    slots: int
    runs_once = True

    def lower(self, devices: Devices) -> Any:
        """Return the program, traced and lowered."""
        (add, start), optimizer, slots = ESTIMATES[self.of], self.optimizer, self.slots

        def added(split: Any, settings: Settings, state: State, sums: Any, end: Any) -> Any:
            add_one = partial(add, devices.traced.workload, split, settings, state)
            return devices.repeat(add_one, lambda sums: sums.count < end, sums)

        body = lambda split, *of_trial: devices.each(partial(added, split))(*of_trial)
        sums = start(devices.traced.shapes.parameters)
        arguments = (
            devices.splits["train"],
            devices.settings(optimizer, slots),
            devices.state(optimizer, slots),
            jax.tree.map(lambda a: devices.shape(slots, a.shape, a.dtype), sums),
            devices.shape(slots, (), np.int32),
        )
        return devices.lowered(body, (COPIED, TRIAL, TRIAL, TRIAL, TRIAL), arguments)

    def __str__(self) -> str:
        return f"{self.of} {self.optimizer.family}, pack size {self.slots}"
