"""How JAX is set up: devices, the settings that decide numbers, and the compilation cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from sgdscope import atomic
from sgdscope.cache import cache_folder
from sgdscope.data.pipeline import cores


def configure_jax() -> str | None:
    """Set JAX up for this process: each core a device, and compiled programs kept from run to run.

    The command line calls it. From Python it is yours to call, before JAX starts: it changes JAX's global configuration
    (``jax_num_cpu_devices``, the compilation cache's folder and its thresholds). Without it, a study trains on the
    devices that JAX has, with the same numbers.

    Returns:
        A sentence for the user where cores stay idle, or None.

    >>> import sgdscope as sg
    >>> notice = sg.configure_jax()
    """
    with contextlib.suppress(RuntimeError):  # JAX has started; or the user has said how many
        if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
            jax.config.update("jax_num_cpu_devices", cores())
    CompilationCache().open()
    return idle_cores()


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


# One thread a device: another count of threads sums in another order, and that changes bits.
COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_multi_thread_eigen": False},
    "gpu": {},
    "tpu": {},
}
# For programs that run once or twice a trial: half the compile time, and no slower where it was measured.
QUICKLY_COMPILED: dict[str, Any] = {"xla_backend_optimization_level": 1}


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Pin what decides numbers, whatever the user's global configuration says."""
    with (
        jax.enable_x64(False),
        jax.default_matmul_precision("highest"),
        jax.threefry_partitionable(True),
        jax.default_prng_impl("threefry2x32"),
    ):
        yield


class CompilationCache:
    """A folder of compiled programs, one for each processor model and version of jaxlib.

    JAX writes an entry in place and never replaces a damaged one, so a process that is killed while it
    writes would leave an entry that is useless for ever. Here every finished entry has its SHA-256 beside
    it, and what has none, or another, is deleted before JAX looks.
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
