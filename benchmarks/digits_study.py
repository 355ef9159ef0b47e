"""How long the built-in study `digits` takes, with an empty and with a filled compilation cache.

    python benchmarks/digits_study.py [RUNS]

Each run is a process of its own with a new folder, as a user starts it; the figures are medians with their
range. Compiling happens beside training, so its seconds are not a part of the total that could be taken off.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run_once(cache: Path) -> dict[str, float]:
    """Run the study in a new folder and return its seconds: in all, of compiling, and until the first commit."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "sgdscope.cli", "run", "digits", "--verbose", "--out", f"{folder}/study"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"SGDSCOPE_CACHE_DIR": str(cache)},
        )
        total = time.perf_counter() - begun
    compiled = re.search(r"compiled \d+ programs in ([\d.]+) s", done.stdout)
    trained = re.search(r"trained (\d+) trials in ([\d.]+) s", done.stdout)
    assert compiled
    assert trained
    return {"total": total, "compiling": float(compiled[1]), "trials": float(trained[1])}


def compile_alone(cache: Path) -> float:
    """Return the seconds that all programs of the study take to compile or load with nothing trained beside."""
    program = (
        "import time; from sgdscope.training.jax_setup import configure_jax; configure_jax()\n"
        "from sgdscope.studies.digits import study; from sgdscope.training.traced import trace\n"
        "from sgdscope.training.packed import PackedBackend; from sgdscope.engine.run import _kinds\n"
        "begun = time.perf_counter(); backend = PackedBackend(trace(study.workloads[0]))\n"
        "backend.expect(_kinds(study.declaration(), 'digits')); backend.compiler.settle()\n"
        "print(time.perf_counter() - begun); backend.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SGDSCOPE_CACHE_DIR": str(cache)},
    )
    return float(done.stdout)


def main(runs: int) -> None:
    """Print a table: cold and warm, median and range of each figure."""
    results: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as cache:
            for kind in results:
                results[kind].append(run_once(Path(cache)))
        with tempfile.TemporaryDirectory() as cache:
            for kind in results:
                results[kind][-1]["alone"] = compile_alone(Path(cache))
    print("total: the command; compiling: summed over programs, beside training; alone: all programs, nothing beside")
    print(f"{len(os.sched_getaffinity(0))} cores, n = {runs} runs of each; seconds: median (lowest to highest)")
    for kind, rows in results.items():
        for figure in ("total", "compiling", "alone"):
            values = [row[figure] for row in rows]
            print(f"{kind:5} {figure:10} {statistics.median(values):6.1f} ({min(values):.1f} to {max(values):.1f})")
    print(f"trials     {results['cold'][0]['trials']:.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
