"""How JAX is set up: devices, the settings that decide numbers, and the compilation cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from sgdscope import atomic
from sgdscope.errors import InputError
from sgdscope.system import cache_folder, cores


def configure_jax() -> str | None:
    """Set JAX up for this process: each core a device, and compiled programs kept from run to run.

    The command line calls it. From Python it is yours to call, before JAX starts: it changes JAX's global configuration
    (``jax_num_cpu_devices``, the compilation cache's folder and its thresholds). Without it, a study trains on the
    devices that JAX has, with the same numbers.

    Returns:
        A sentence for the user where JAX has started and cores stay idle, or None.

    >>> import sgdscope as sg
    >>> notice = sg.configure_jax()
    """
    CompilationCache().open()
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return None  # the user has said how many
    try:
        jax.config.update("jax_num_cpu_devices", cores())
    except RuntimeError:  # JAX has started
        return idle_cores()
    return None


def idle_cores() -> str | None:
    """Return a sentence where JAX has fewer CPU devices than there are cores, or None."""
    count = cores()
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return None
    if jax.default_backend() == "cpu" and jax.device_count() < count:
        return (
            f"JAX uses {jax.device_count()} of {count} cores. The numbers are the same and the study takes longer. "
            f"Call sgdscope.configure_jax() before JAX starts to use all."
        )
    return None


def seal_cache() -> None:
    """Note which entries of the compilation cache are whole, where JAX's cache is ours."""
    cache = CompilationCache()
    if jax.config.values["jax_compilation_cache_dir"] == str(cache.entries):
        cache.seal()


def xla_threads() -> int:
    """Return how many threads XLA splits a large sum among on a CPU: ``NPROC`` or the cores, at least one a device.

    The split decides the order of additions, and so bits; no option of XLA turns it off.
    """
    try:
        wanted = int(os.environ.get("NPROC", ""))
    except ValueError:
        wanted = cores()
    return max(wanted, jax.local_device_count())


def device_name(device: jax.Device) -> str:
    """Return JAX's name of the kind of device; of a CPU with :func:`xla_threads`, which decide bits too."""
    name: str = device.device_kind
    return f"{name} ({xla_threads()} threads)" if device.platform == "cpu" else name


# Eigen takes no threads of its own beside those of the devices.
COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_multi_thread_eigen": False},
    "gpu": {},
    "tpu": {},
}
# For programs that run once or twice a trial: half the compile time, and no slower where it was measured.
QUICKLY_COMPILED: dict[str, Any] = {"xla_backend_optimization_level": 1}


# JAX's options that decide numbers or would break a training, by the context manager of each.
PINNED: dict[str, Any] = {
    "default_matmul_precision": "highest",
    "default_prng_impl": "threefry2x32",
    "threefry_partitionable": True,
    "enable_x64": False,
    "numpy_dtype_promotion": "standard",
    "numpy_rank_promotion": "allow",
    "legacy_prng_key": "allow",
    "enable_custom_prng": False,
    "softmax_custom_jvp": False,
    "default_device": None,
    "disable_jit": False,
    "no_tracing": False,
    "no_execution": False,
    "debug_nans": False,
    "debug_infs": False,
    "debug_key_reuse": False,
    "enable_checks": False,
    "check_tracer_leaks": False,
    "transfer_guard": "allow",
    "thread_guard": False,
    "array_garbage_collection_guard": "allow",
}
# Options that change what is computed and that no context manager pins, with JAX's own defaults.
REFUSED: dict[str, Any] = {
    "jax_random_seed_offset": 0,
    "jax_disable_most_optimizations": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_exec_time_optimization_effort": 0.0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_threefry_gpu_kernel_lowering": False,
    "jax_allow_f16_reductions": True,
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "eager_constant_folding": False,
}


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Pin what decides numbers, whatever the user's global configuration says."""
    with contextlib.ExitStack() as pins:
        for option, value in PINNED.items():
            pins.enter_context(getattr(jax, option)(value))
        yield


def check_jax() -> None:
    """Start JAX on the platform that the user named, if any.

    Raises:
        InputError: If JAX cannot start there, or has an option that changes numbers and that cannot be pinned.
    """
    for option, default in REFUSED.items():
        value = jax.config.values.get(option, default)
        if value != default:
            raise InputError(
                f"JAX's option {option} is {value!r}, which changes what is computed. Use its default, {default!r}, "
                f"and unset {option.upper()}."
            )
    try:
        jax.devices()
    except Exception as error:
        raise InputError(cannot_start(error)) from error


def cannot_start(error: Exception) -> str:
    """Say that JAX cannot start, and what would do, in place of the error that JAX raised."""
    lines = str(error).strip().splitlines() or ["JAX gives no reason"]
    said = re.sub(r" \((set|you may need) .*", "", lines[0]).rstrip(".")
    for option in ("jax_platforms", "jax_platform_name"):
        if named := jax.config.values[option]:
            return (
                f"{option.upper()}={named}: JAX cannot start there ({said}). "
                f"Unset {option.upper()}, or name a platform that this machine has, such as cpu."
            )
    return f"JAX cannot start ({said}). Set JAX_PLATFORMS=cpu to use the processor alone."


class CompilationCache:
    """A folder of compiled programs, one for each processor model and version of jaxlib.

    JAX writes an entry in place and never replaces a damaged one. So every finished entry has its SHA-256 beside it,
    and entries without it, or with another, are deleted before JAX looks.
    """

    def __init__(self, folder: Path | None = None) -> None:
        base = folder or cache_folder()
        self.entries = base / "programs" / machine()
        self.sums = base / "sums" / machine()

    def open(self) -> None:
        """Delete what is damaged and point JAX here, unless the user has pointed it elsewhere.

        Without a writable folder there is no cache, and programs are compiled anew.
        """
        try:
            self.entries.mkdir(parents=True, exist_ok=True)
            self.sums.mkdir(parents=True, exist_ok=True)
            for entry in _files(self.entries):
                known = self.sums / entry.name
                if not known.is_file() or known.read_text() != _sha256(entry):
                    entry.unlink(missing_ok=True)
                    known.unlink(missing_ok=True)
        except OSError:
            return
        if jax.config.values["jax_compilation_cache_dir"] not in (None, str(self.entries)):
            return
        jax.config.update("jax_compilation_cache_dir", str(self.entries))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

    def seal(self) -> None:
        """Note the sums of the entries written since; called when no program is being compiled."""
        with contextlib.suppress(OSError):
            for entry in _files(self.entries):
                known = self.sums / entry.name
                if not known.is_file():
                    atomic.replace(known, _sha256(entry).encode())


def _files(folder: Path) -> list[Path]:
    """Return the entries, and not the folder in which XLA keeps which of a GPU's kernels were fastest."""
    return [path for path in folder.iterdir() if path.is_file()]


def machine() -> str:
    """Return a hash of the processor's model and the version of jaxlib: what compiled programs and bits depend on."""
    return hashlib.sha256(f"{_processor()} {version('jaxlib')}".encode()).hexdigest()[:16]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _processor() -> str:
    with contextlib.suppress(OSError):
        # The first processor's model and its instruction sets: what a compiled program may rely on.
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "".join(line for line in first if line.startswith(("model name", "flags", "Features")))
    return platform.processor() + platform.machine()
