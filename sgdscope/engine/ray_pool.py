"""A pool of devices on a Ray cluster: one long-lived actor a device, on the machines that the cluster has."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from sgdscope.engine.crew import LostError
from sgdscope.engine.device import Device
from sgdscope.errors import HERE, INSTALLED, InputError
from sgdscope.study import Study

# Of a Ray that is started here: it sends no usage statistics, its processes are no slower than this one, and it does
# not warn of an actor without a GPU.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Actor(Device):
    """A device in an actor.

    Args:
        devices: how many of JAX's devices it has.
        threads: on a CPU, among how many threads a large sum is split, which decides bits. None elsewhere.
    """

    def __init__(self, devices: int, threads: int | None) -> None:
        import jax

        from sgdscope.training.jax_setup import CompilationCache

        if threads is not None:  # Ray limits an actor to no cores, and all would be taken
            os.environ["NPROC"] = str(threads)
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = re.sub(r"--xla_force_host_platform_device_count=\S*", "", flags)
            jax.config.update("jax_platforms", "cpu")
            jax.config.update("jax_num_cpu_devices", devices)
        CompilationCache().open()


class RayPool:
    """The devices of a Ray cluster: its GPUs if JAX can use them, else its CPUs.

    Args:
        devices_per_trial: how many devices of one machine an actor has.

    Raises:
        InputError: If no machine has so many.
    """

    def __init__(self, devices_per_trial: int) -> None:
        import jax
        import ray

        from sgdscope.training.jax_setup import xla_threads

        self._ray = ray
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        on_cpu = jax.config.values["jax_platforms"] == "cpu" or not entry_points(group="jax_plugins")
        kind = "CPU" if on_cpu or not any("GPU" in machine for machine in machines) else "GPU"
        self.size = sum(int(machine.get(kind, 0)) // devices_per_trial for machine in machines)
        if not self.size:
            raise InputError(
                f"devices_per_trial: no machine of the Ray cluster has {devices_per_trial} {kind}s. Use fewer."
            )
        of = {"num_cpus": devices_per_trial} if kind == "CPU" else {"num_cpus": 1, "num_gpus": devices_per_trial}
        self._actor = ray.remote(Actor).options(max_restarts=0, **of)
        self._arguments = devices_per_trial, xla_threads() if kind == "CPU" else None

    def start(self) -> Any:
        """Start an actor, as soon as the cluster has place for it."""
        return self._actor.remote(*self._arguments)

    def share(self, study: Study) -> Callable[[], Study]:
        """Put the study into the object store."""
        try:
            return partial(self._ray.get, self._ray.put(study))
        except Exception as error:
            why = _said(error.__cause__ or error)
            raise InputError(
                f"workload {study.workloads[0].name!r} cannot be sent to other processes ({why}). Keep what "
                f"only one process has, such as open files and locks, out of its functions and the files they import."
            ) from error

    def ask(self, device: Any, method: str, *arguments: Any) -> Any:
        """Begin a call."""
        return getattr(device, method).remote(*arguments)

    def first(self, asked: Sequence[Any], seconds: float) -> Any | None:
        """Return one of the calls that has ended, or None."""
        return next(iter(self._ray.wait(list(asked), num_returns=1, timeout=seconds)[0]), None)

    def answer(self, asked: Any) -> Any:
        """Return what a call returned."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(asked)
        except errors.RayTaskError:  # a defect of ours, with the traceback of the actor
            raise
        except errors.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            if getattr(error, "actor_init_failed", False):
                raise InputError(f"engine: a device cannot start: {lines[-1]}") from error
            raise LostError(lines[-1].partition(". ")[0].rstrip(".")) from error

    def stop(self, device: Any) -> None:
        """Kill an actor."""
        self._ray.kill(device)


def check_installed() -> None:
    """Refuse to go on without Ray.

    Raises:
        InputError: It says what to install.
    """
    if find_spec("ray") is None:
        raise InputError("engine: ray is not installed. Install it: pip install 'sgdscope[ray]'.")


@contextlib.contextmanager
def ray_pool(devices_per_trial: int) -> Iterator[RayPool]:
    """Yield the devices of the Ray cluster that this process is connected to, that there is, or that is started here.

    Raises:
        InputError: If the cluster cannot be reached, or has no such devices.
    """
    import ray

    ours = not ray.is_initialized()
    with _by_value(), _without_logs():
        try:
            if ours:
                _connect()
            yield RayPool(devices_per_trial)
        finally:
            if ours:
                ray.shutdown()


def _connect() -> None:
    """Connect to the cluster that RAY_ADDRESS names or that runs on this machine, or else start one here."""
    import ray

    with warnings.catch_warnings(), _environment(ENVIRONMENT), _same_handler(signal.SIGTERM):
        warnings.simplefilter("ignore")  # that JAX has threads, of which the processes of Ray have none
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise InputError(
                f"engine: Ray cannot be reached or started ({_said(error)}). Check RAY_ADDRESS."
            ) from error


def _said(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment that are not set, for a while."""
    mine = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _same_handler(number: int) -> Iterator[None]:
    """Keep the handler of a signal, in place of which Ray puts its own."""
    handler = signal.getsignal(number)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Keep the logs of a machine that was lost out of standard output, where Ray prints them and has no option."""
    from ray._private import worker

    shown = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = shown


@contextlib.contextmanager
def _by_value() -> Iterator[None]:
    """Send the functions of the user's own files as they are, since other processes cannot import them."""
    from ray import cloudpickle

    known = cloudpickle.list_registry_pickle_by_value()
    found = {
        name: module for name, module in list(sys.modules.items()) if _is_users(name, module) and name not in known
    }
    for module in found.values():
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in found.values():
            cloudpickle.unregister_pickle_by_value(module)


def _is_users(name: str, module: ModuleType) -> bool:
    """Return whether a module is a file of the user's own, and neither installed nor ours."""
    file = getattr(module, "__file__", None)
    if not file or getattr(module, "__name__", None) != name:
        return False
    folders = Path(file).parents
    return not any(folder in folders for folder in (HERE, *INSTALLED)) and "site-packages" not in Path(file).parts
