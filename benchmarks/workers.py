"""Workers on one folder: killed again and again, four against one, and what leases cost.

    python benchmarks/workers.py RESULTS [KILLS]

- Four workers train one study. At random moments one of them is killed (SIGKILL) and replaced, until so many kills were
  made or the study is finished; then the study begins anew in another folder. Every finished table is compared with
  that of a single process, bit for bit.
- Four workers against one, and the milliseconds a trial of tiny trials, on the cores of this machine.
- Leases: so many workers at once in one process each want a trial of a folder with 100,000 trials.

Writes README.md into RESULTS.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.console import Console

import sgdscope as sg
from sgdscope.engine import run, workers
from sgdscope.engine.workers import Worker, WorkerInfo
from sgdscope.store import Store
from sgdscope.training import loop

WORKERS = 4
STUDY = """
import sgdscope as sg
from sgdscope.testing.quadratic import NoisyQuadratic

study = sg.Study(
    name="quadratic", workloads=NoisyQuadratic().workload(), batch_sizes=(1, 4, 16, 64), budgets=sg.Epochs({epochs}),
    seeds={seeds},
)
"""


def train(study: Path, folder: Path) -> None:
    """Train what is left: small packs and frequent checkpoints, so that a short study has many moments to die in."""
    run.PACK_SECONDS, loop.CHECKPOINT_SECONDS, loop.SEGMENT_SECONDS, workers.LONGEST_WAIT = 0.0, 0.05, 0.01, 0.2
    sg.configure_jax()
    sg.run(sg.studies.get(str(study)), folder, Console(file=io.StringIO()))


def start(study: Path, folder: Path) -> BaseProcess:
    """Start a worker: a fork of a server that has imported all, and started neither JAX nor threads of polars."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sgdscope.engine.run", "sgdscope.training.packed"])
    process = context.Process(target=train, args=(study, folder))
    process.start()
    return process


def killed(place: Path, kills: int) -> tuple[int, int, int]:
    """Kill workers until so many kills were made; return kills, studies and trials."""
    path, draw = place / "study.py", random.Random(0)
    path.write_text(STUDY.format(epochs=1, seeds=3))
    first = start(path, place / "never")
    first.join()
    never = sg.load(place / "never")
    made = studies = 0
    while made < kills:
        folder = place / f"killed-{studies}"
        running = [start(path, folder) for _ in range(WORKERS)]
        while made < kills and not any(process.exitcode == 0 for process in running):
            time.sleep(draw.uniform(0.0, 10.0))
            victim = draw.choice(running)
            victim.kill()
            victim.join()
            made += victim.exitcode == -signal.SIGKILL
            running.remove(victim)
            running.append(start(path, folder))
        for process in running:
            process.join()
        codes = [process.exitcode for process in running]
        result, studies = sg.load(folder), studies + 1
        assert set(codes) == {0}, codes
        assert result.finished
        assert result.contents.trials["trial_id"].is_unique().all()
        assert result.numbers().equals(never.numbers())
        assert result.measurements.equals(never.measurements)
        assert result.correctness.equals(never.correctness)
        assert not list(folder.glob("leases/*"))
        print(f"{made} kills, {studies} studies", flush=True)
    return made, studies, len(never.trials)


def together(place: Path, count: int, seeds: int) -> float:
    """Return the seconds in which so many workers train a study of tiny trials, from their start to the last's end."""
    path = place / f"tiny-{count}.py"
    path.write_text(
        "import sgdscope as sg\nfrom sgdscope.testing.quadratic import NoisyQuadratic\n"
        'study = sg.Study(name="tiny", workloads=NoisyQuadratic().workload(), batch_sizes=(64, 256), '
        f"budgets=sg.Steps(1), learning_rates=[2.0**-k for k in range(10)], seeds={seeds})\n"
    )
    command = [sys.executable, "-m", "sgdscope.cli", "run", str(path), "--out", str(place / f"tiny-{count}")]
    begun = time.perf_counter()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(workers)]
    assert {process.wait() for process in running} == {0}
    return time.perf_counter() - begun


def leases(place: Path, count: int, trials: int) -> tuple[float, float, int]:
    """Return the milliseconds of a lease with its release, of a look at all, and how often one went to two workers."""
    store = Store(place / f"leases-{count}")
    with store.writing(), Worker(store, WorkerInfo("simulated", "", "")):  # which makes the folders
        crew = [Worker(store, WorkerInfo("simulated", "", "")) for _ in range(count)]
    for worker in crew:
        (worker._workers / worker.name).write_text(worker.name)
        worker._write(lambda info: info)  # registers it, without a heart
    ids = [f"{number:016x}" for number in range(trials)]
    owners, looks, takes, doubled = dict[str, Worker](), [], [], 0
    for place_of, worker in enumerate(crew):
        begun = time.perf_counter()
        free = worker.free(ids)
        looks.append(time.perf_counter() - begun)
        mine = dict(list(free.items())[place_of : place_of + 32])
        begun = time.perf_counter()
        for trial in worker.take(mine):
            doubled += trial in owners
            owners[trial] = worker
        takes.append((time.perf_counter() - begun) / max(1, len(mine)))
    return 1e3 * statistics.median(takes), 1e3 * statistics.median(looks), doubled


def main(results: str, kills: int = 100) -> None:
    """Measure and write the results."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["SGDSCOPE_CACHE_DIR"] = str(place / "cache")
        lines = [
            "# Workers on one folder",
            f"`python benchmarks/workers.py RESULTS {kills}`: sgdscope {version('sgdscope')}, jax {version('jax')}, "
            f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start from other processes.",
            "",
        ]
        made, studies, trials = killed(place, kills)
        lines += [
            f"- {made} workers of {WORKERS} on a folder were killed at random moments, over {studies} studies of "
            f"{trials} trials. Every study ended with the table of a single process, bit for bit.",
        ]
        print(lines[-1], flush=True)
        for count, trials in ((1, 100_000), (1000, 32_000)):
            take, look, doubled = leases(place, count, trials)
            lines.append(
                f"- {count:,} workers one after the other on {trials:,} trials, 32 trials each: a lease takes "
                f"{take:.3f} ms, a look for free trials {look:.0f} ms; {doubled} trials went to two workers."
            )
            print(lines[-1], flush=True)
        together(place, 2, 1)  # compiles
        seconds = {count: together(place, count, 50) for count in (1, 4)}
        lines.append(
            "- 2,000 trials of one update each, with start, tables and page: "
            + ", ".join(
                f"{count} worker{'s' * (count > 1)} {took:.1f} s ({took / 2:.1f} ms a trial)"
                for count, took in seconds.items()
            )
            + "."
        )
        print(lines[-1], flush=True)
        lines.append("")
    print("\n".join(lines))
    (Path(results)).mkdir(parents=True, exist_ok=True)
    (Path(results) / "README.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
