"""What a study costs beside its training: starting, compiling, and the harness at 10,000 trials of almost no work.

    python benchmarks/overhead.py RESULTS [TRIALS]

- From the command to the first update, with an empty and with a filled compilation cache, in processes of their own.
- Tracing and compiling of each program.
- Where the time of the `digits` study goes, with a filled cache: the seconds inside each part.
- The harness: a study of the noisy quadratic whose trials make one update each, so that all the rest of its time is the
  harness: packing, starting, measuring, committing, and at last the tables and the page. Its peak memory.

Writes README.md into RESULTS.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import sgdscope as sg
from sgdscope.testing.quadratic import NoisyQuadratic

RUNS = 3
# The moment of the first update is when the first segment of the first pack begins.
FIRST_UPDATE = """
import sys, time
from sgdscope.training.packed import PackedBackend
first = PackedBackend._run
def run(self, *arguments):
    print("first update", time.time(), flush=True)
    PackedBackend._run = first
    return first(self, *arguments)
PackedBackend._run = run
from sgdscope.cli import main
few = ["--batch-sizes", "64", "256", "1024", "--seeds", "2"]
sys.exit(main(["run", "digits", "--verbose", *few, "--out", sys.argv[1]]))
"""

# The seconds inside each of these, of which none calls another.
PARTS = {
    "updates": "sgdscope.training.packed:PackedBackend._run",
    "evaluations": "sgdscope.training.packed:PackedBackend.evaluate",
    "starting trials": "sgdscope.training.packed:PackedBackend._settings",
    "committing": "sgdscope.store:Store.commit",
    "searching": "sgdscope.engine.run:search",
    "what remains": "sgdscope.engine.run:remaining",
    "tables and page": "sgdscope.report.page.page:write_page",
}
SHARES = """
import functools, importlib, json, sys, time
begun, taken = time.time(), {}
def timed(part, function):
    @functools.wraps(function)
    def inside(*args, **kwargs):
        called = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            taken[part] = taken.get(part, 0.0) + time.perf_counter() - called
    return inside
for part, place in json.loads(sys.argv[2]).items():
    module, path = place.split(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, timed(part, getattr(owner, name)))
import sgdscope.cli
status = sgdscope.cli.main(["run", "digits", "--out", sys.argv[1]])
print("shares", json.dumps(taken | {"all": time.time() - begun}))
sys.exit(status)
"""


def shares(cache: Path) -> dict[str, float]:
    """Return the seconds of the `digits` study that went into each part, and all of them."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", SHARES, f"{folder}/study", json.dumps(PARTS)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"SGDSCOPE_CACHE_DIR": str(cache)},
        )
    found: dict[str, float] = json.loads(done.stdout.rsplit("shares ", 1)[1])
    return found


def start(cache: Path) -> tuple[float, list[tuple[str, float, float]]]:
    """Return the seconds to the first update, and of each program those of tracing and of compiling."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.time()
        done = subprocess.run(
            [sys.executable, "-c", FIRST_UPDATE, f"{folder}/study"],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"SGDSCOPE_CACHE_DIR": str(cache)},
        )
    at = re.search(r"first update ([\d.]+)", done.stdout)
    assert at
    programs = re.findall(r"compiled ([\w, ]+): traced in ([\d.]+) s, ([\d.]+) s", done.stdout)
    return float(at[1]) - begun, [(name, float(trace), float(compiling)) for name, trace, compiling in programs]


def harness(trials: int) -> tuple[float, float]:
    """Return the seconds a trial of the run and of its tables and page, and those of running it when all is done."""
    seeds = max(1, trials // 40)
    study = sg.Study(
        name="harness",
        workloads=NoisyQuadratic().workload(),
        optimizers=(sg.SGD(), sg.SGD(momentum=0.9)),
        batch_sizes=(64, 256),
        budgets=sg.Steps(1),
        learning_rates=[2.0**-k for k in range(10)],
        seeds=seeds,
    )
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        result = sg.run(study, Path(folder) / "study")
        result.save_report(Path(folder) / "page.html")
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        sg.run(study, Path(folder) / "study")
        return first / len(result.trials), time.perf_counter() - begun


def main(results: str, trials: int = 10_000) -> None:
    """Measure and write the results."""
    lines = [
        "# What a study costs beside its training",
        f"`python benchmarks/overhead.py RESULTS {trials}`: sgdscope {version('sgdscope')}, jax {version('jax')}, "
        f"{len(os.sched_getaffinity(0))} cores; n = {RUNS} runs, medians (lowest to highest).",
        "",
    ]
    starts: dict[str, list[tuple[float, list[tuple[str, float, float]]]]] = {"empty": [], "filled": []}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as cache:
            for kind in starts:
                starts[kind].append(start(Path(cache)))
    spread = lambda values: f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    for kind, found in starts.items():
        lines.append(f"- From the command to the first update, {kind} cache: {spread([s for s, _ in found])} s.")
    for kind, found in starts.items():
        each = [trace + compiling for _, programs in found for _, trace, compiling in programs]
        total = [sum(trace + compiling for _, trace, compiling in programs) for _, programs in found]
        lines.append(
            f"- A program, {kind} cache, two at a time beside training: {spread(each)} s; "
            f"the {len(found[0][1])} of the study {spread(total)} s."
        )
    with tempfile.TemporaryDirectory() as cache:
        shares(Path(cache))  # compiles
        parts = [shares(Path(cache)) for _ in range(RUNS)]
    inside = ", ".join(f"{part} {spread([run[part] for run in parts])}" for part in PARTS)
    other = [run["all"] - sum(run[part] for part in PARTS) for run in parts]
    lines.append(
        f"- The `digits` study, filled cache: {spread([run['all'] for run in parts])} s, of which {inside}, and "
        f"all else, as imports, tracing, loading programs and summing up: {spread(other)}."
    )
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SGDSCOPE_CACHE_DIR"] = cache
        harness(40)  # compiles
        found = [harness(trials) for _ in range(RUNS)]
    lines.append(
        f"- {trials:,} trials of one update each, with tables and page: {spread([1e3 * s for s, _ in found])} ms a "
        f"trial; the same command once more, when all is done: {spread([s for _, s in found])} s."
    )
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += [f"- Peak memory of the process that ran them: {memory:.2f} GiB.", ""]
    print("\n".join(lines))
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
