"""Workers on one folder, killed again and again, four against one, and what leases and packs cost; devices of Ray.

    python benchmarks/workers.py kills RESULTS [KILLS]
    python benchmarks/workers.py times RESULTS
    python benchmarks/workers.py ray RESULTS

``kills``: four workers train one study. At random moments one of them is killed (SIGKILL) and replaced, until the study
is finished; then the study begins anew in another folder, until so many kills were made. Every finished table is
compared with that of a single process, bit for bit. The same command resumes: each study is a row of kills.csv, and
a study that was cut short counts for nothing.

``times``, in some 8 minutes on two cores that do nothing else:

- from the command to the first update, of a worker that begins a folder and of one that joins it;
- 10,000 trials of one update each by one worker and by four, in turns: the milliseconds a trial;
- a study whose time is its updates by one worker and by four on the same cores, in turns;
- what a pack costs beside its training, and a commit on a folder of many commits;
- leases on a folder of 100,000 trials, and of 1,000 workers, 250 in each of four processes, that all lease at once.

``ray``, which needs the extra ray: a process of one device against Ray with one, in turns: from the command to the
first commit, and the milliseconds a pack of the smallest size. The two tables are compared bit for bit.

All write README.md into RESULTS.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

import sgdscope as sg
from sgdscope.engine import run, workers
from sgdscope.engine.workers import Worker, WorkerInfo
from sgdscope.store import SCHEMAS, TRIALS_SCHEMA, Store
from sgdscope.training import loop
from sgdscope.training.checkpoint import Checkpoints

WORKERS = 4
TURNS = 3
# Between two kills the workers together have up to so many seconds of processor time, whatever else the cores do.
LONGEST_LIFE = 12.0
LEASED_AT_ONCE = 32
BUSY = " Other processes used the same cores: only the processor times and their ratios can be compared."
WHO = WorkerInfo("simulated", "", "")
STUDY = """
import sgdscope as sg
from sgdscope.testing.quadratic import NoisyQuadratic

study = sg.Study(name="quadratic", workloads=NoisyQuadratic().workload(), {fields})
"""
STUDIES = {
    "killed": STUDY.format(fields="batch_sizes=(1, 4, 16, 64), budgets=sg.Epochs(1), seeds=5"),
    "10,000 trials of one update": STUDY.format(
        fields="batch_sizes=(64, 256), budgets=sg.Steps(1), learning_rates=[2.0**-k for k in range(10)], seeds=250"
    ),
    "180 trials of 300 epochs": """
import sgdscope as sg

study = sg.Study(
    name="digits", workloads=sg.workloads.digits(), batch_sizes=(16, 64, 256), budgets=sg.Epochs(300), seeds=5,
    learning_rates=[2.0**-k for k in range(6)],
)
""",
    "packs": STUDY.format(
        fields="batch_sizes=64, optimizers=sg.SGD(), budgets=sg.Steps(1), learning_rates=(0.25, 0.5), seeds=200"
    ),
}
FIRST_UPDATE = """
import os, sys, time
from sgdscope.training.packed import PackedBackend
def run(*arguments):
    print(time.time(), flush=True)
    os._exit(0)
PackedBackend._run = run
from sgdscope.cli import main
main(sys.argv[1:])
"""

# Prints when each pack is committed. One device is what an actor has.
COMMITS = """
import os, sys, time
import jax
from sgdscope.engine import run
from sgdscope.store import Store
if sys.argv[1] == "local":
    jax.config.update("jax_num_cpu_devices", 1)
else:
    from sgdscope.engine.crew import Crew
    begin = Crew.__init__
    def one(self, pool, *arguments):
        pool.size = 1
        begin(self, pool, *arguments)
    Crew.__init__ = one
run.PACK_SECONDS = 0.0
plain = Store.commit
def commit(*arguments):
    rows = plain(*arguments)
    print(time.time(), flush=True)
    return rows
Store.commit = commit
import sgdscope as sg
from sgdscope.training.jax_setup import CompilationCache
CompilationCache().open()
sg.run(sg.studies.get(sys.argv[2]), sys.argv[3], engine=sys.argv[1])
"""


# ── Killed ───────────────────────────────────────────────────────────────────────────────────────────────


def train(study: Path, folder: Path, small: bool) -> None:
    """Train what is left, with small packs and frequent checkpoints where many moments to die in are wanted."""
    if small:
        run.PACK_SECONDS, loop.CHECKPOINT_SECONDS, loop.SEGMENT_SECONDS, workers.LONGEST_WAIT = 0.0, 0.05, 0.01, 0.2
    sg.configure_jax()
    sg.run(sg.studies.get(str(study)), folder, Console(file=io.StringIO()))
    (folder.parent / f"{os.getpid()}.seconds").write_text(str(time.process_time()))


def start(study: Path, folder: Path, small: bool) -> BaseProcess:
    """Start a worker: a fork of a server that has imported all, and started neither JAX nor threads of polars."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sgdscope.engine.run", "sgdscope.training.packed"])
    process = context.Process(target=train, args=(study, folder, small))
    process.start()
    return process


def killed(results: Path, place: Path, kills: int) -> None:
    """Kill workers, study after study, until so many kills were made in all."""
    path, study = results / "kills.csv", place / "killed.py"
    rows = pl.read_csv(path).rows(named=True) if path.exists() else []
    start(study, place / "never", small=True).join()
    while sum(row["kills"] for row in rows) < kills:
        rows.append({"study": len(rows), **killed_in(study, place, random.Random(len(rows)))})
        pl.DataFrame(rows).write_csv(path)
        print(rows[-1], flush=True)


def killed_in(study: Path, place: Path, draw: random.Random) -> dict[str, object]:
    """Train a study by workers that are killed until it is finished, and compare its tables with one process's."""
    folder, begun = place / f"killed-{draw.random()}", time.perf_counter()
    doing = dict.fromkeys(("starting", "training", "waiting"), 0)
    running = [start(study, folder, small=True) for _ in range(WORKERS)]
    while not any(process.exitcode == 0 for process in running):
        until = processor_seconds(running) + draw.uniform(0.0, LONGEST_LIFE)
        while processor_seconds(running) < until and not any(process.exitcode == 0 for process in running):
            time.sleep(0.01)
        victim = draw.choice(running)
        victim.kill()
        victim.join()
        assert victim.exitcode in (0, -signal.SIGKILL)
        if victim.exitcode == -signal.SIGKILL:
            doing[what_did(victim, folder)] += 1
            running.remove(victim)
            running.append(start(study, folder, small=True))
    for process in running:
        process.join()
    assert {process.exitcode for process in running} == {0}
    result, never = sg.load(folder), sg.load(place / "never")
    assert result.finished
    assert result.contents.trials["trial_id"].is_unique().all()
    assert result.numbers().equals(never.numbers())
    assert result.measurements.equals(never.measurements)
    assert result.correctness.equals(never.correctness)
    last = start(study, folder, small=True)  # finds nothing to train, and clears what killed workers left
    last.join()
    assert last.exitcode == 0
    assert sg.load(folder).trials.equals(result.trials)
    left = [path for kind in ("workers", "leases", "checkpoints") for path in folder.glob(f"{kind}/*")]
    return {
        "kills": sum(doing.values()), **doing, "trials": len(result.trials), "seconds": time.perf_counter() - begun,
        "files_left": len({*left, *folder.rglob("*.part")}), "cores": len(os.sched_getaffinity(0)),
        "sgdscope": version("sgdscope"), "jax": version("jax"),
    }  # fmt: skip


def processor_seconds(processes: Sequence[BaseProcess]) -> float:
    """Return the processor time that some processes have taken; of one that has ended, none."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(OSError):
            told = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(told[11]) + int(told[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def what_did(victim: BaseProcess, folder: Path) -> str:
    """Return what a killed worker had told last."""
    for path in folder.glob("workers/*.json"):
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(path.read_text())
            if told["machine"].endswith(f" {victim.pid}"):
                return "training" if "train" in told["training"] else "waiting" if told["training"] else "starting"
    return "starting"


# ── Times ────────────────────────────────────────────────────────────────────────────────────────────────


def first_update(words: Sequence[str]) -> float:
    """Return the seconds from a command to its first update, with which it ends."""
    begun = time.time()
    done = subprocess.run([sys.executable, "-c", FIRST_UPDATE, *words], capture_output=True, text=True, check=True)
    return float(done.stdout) - begun


def together(place: Path, name: str, count: int) -> tuple[float, float]:
    """Return the seconds in which so many workers train a study, from their start to the last's end, and their work."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        begun = time.perf_counter()
        running = [start(place / f"{name}.py", Path(folder) / "study", small=False) for _ in range(count)]
        for process in running:
            process.join()
        seconds = time.perf_counter() - begun
        assert {process.exitcode for process in running} == {0}
        assert sg.load(Path(folder) / "study").finished
        return seconds, sum(float(path.read_text()) for path in Path(folder).glob("*.seconds"))


def packs(study: Path, folder: Path) -> list[dict[str, float]]:
    """Return for each of the smallest packs of tiny trials the milliseconds of what belongs to no training."""
    run.PACK_SECONDS = 0.0
    sg.configure_jax()
    taken: list[dict[str, float]] = []

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*arguments: Any, **options: Any) -> Any:
            if part == "lease":
                taken.append({})
            begun = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                if taken:
                    taken[-1][part] = taken[-1].get(part, 0.0) + 1e3 * (time.perf_counter() - begun)

        return inside

    for part, owner, name in (
        ("lease", run._Run, "_next_pack"),
        ("commit", Store, "commit"),
        ("search", run._Run, "_take_in"),
        ("release", run._Run, "_release"),
        ("checkpoints", Checkpoints, "drop"),
    ):
        setattr(owner, name, timed(part, getattr(owner, name)))
    sg.run(sg.studies.get(str(study)), folder, Console(file=io.StringIO()))
    return [parts for parts in taken if "commit" in parts]


def commits(folder: Path, before: int, count: int = 20) -> list[float]:
    """Return the milliseconds of commits of one trial each, in a folder that has so many commits."""
    store, nothing = Store(folder), [pl.DataFrame(schema=SCHEMAS[kind]) for kind in ("measurements", "correctness")]
    for kind in SCHEMAS:
        (folder / kind).mkdir(parents=True)
        for number in range(before):
            (folder / kind / f"{number:016x}.{number:016x}.parquet").touch()
    store._look(skip_unreadable=True)  # takes them in as known
    taken = []
    for number in range(count):
        row = pl.DataFrame([{"trial_id": f"{number:016x}", "status": "complete"}], schema=TRIALS_SCHEMA)
        begun = time.perf_counter()
        store.commit(row, *nothing)
        taken.append(1e3 * (time.perf_counter() - begun))
    return taken


def lease(folder: Path, count: int, trials: int, first: int) -> list[tuple[list[str], float, float]]:
    """Lease trials by so many workers, one after the other: what each got, and the ms of its look and of a lease."""
    ids, found = [f"{number:016x}" for number in range(trials)], []
    for place in range(first, first + count):
        worker = Worker(Store(folder), WHO)
        (folder / "workers" / worker.name).write_text(worker.name)
        worker._write(lambda info: info)  # registers it, without a heart
        begun = time.perf_counter()
        free = list(worker.free(ids).items())
        looked = time.perf_counter()
        at = place * LEASED_AT_ONCE % max(1, len(free) - LEASED_AT_ONCE)
        got = worker.take(dict(free[at : at + LEASED_AT_ONCE]))
        took = time.perf_counter() - looked
        found.append((got, 1e3 * (looked - begun), 1e3 * took / LEASED_AT_ONCE))
    return found


def leases(folder: Path, count: int, trials: int, processes: int) -> dict[str, list[float]]:
    """Return the milliseconds of looks and leases by so many workers in several processes that lease at once."""
    with Store(folder).writing(), Worker(Store(folder), WHO):  # which makes the folders
        pass
    share = count // processes
    with multiprocessing.get_context("forkserver").Pool(processes) as pool:
        jobs = [(folder, share, trials, process * share) for process in range(processes)]
        found = [each for several in pool.starmap(lease, jobs, chunksize=1) for each in several]
    got = [trial for trials_of, _, _ in found for trial in trials_of]
    assert len(got) == len(set(got)), "a trial went to two workers"
    last, who = Worker(Store(folder), WHO), f"{count:,} worker{'s' * (count > 1)}"
    begun = time.perf_counter()
    assert last.count == count + 1
    return {
        f"{who}, {trials:,} trials: a look for free trials": [look for _, look, _ in found],
        f"{who}, {trials:,} trials: a lease": [took for _, _, took in found],
        f"{who}: a look at all of them": [1e3 * (time.perf_counter() - begun)],
    }


def times(results: Path, place: Path) -> None:
    """Measure what is told above, a row each."""
    rows: list[dict[str, object]] = []

    def note(what: str, unit: str, values: Sequence[float]) -> None:
        rows.append({
            "what": what, "unit": unit, "n": len(values), "median": statistics.median(values), "lowest": min(values),
            "highest": max(values), "load": os.getloadavg()[0], "cores": len(os.sched_getaffinity(0)),
            "sgdscope": version("sgdscope"), "jax": version("jax"),
        })  # fmt: skip
        pl.DataFrame(rows).write_csv(results / "times.csv")
        print(what, unit, *(f"{value:.4g}" for value in values[:TURNS]), flush=True)

    starts: dict[str, list[float]] = {"begins a folder": [], "joins it": []}
    for turn in range(TURNS + 1):  # the first fills the cache
        digits = ["digits", "--batch-sizes", "64", "256", "1024", "--seeds", "2", "--out", str(place / f"first-{turn}")]
        for what, words in (("begins a folder", ["run", *digits]), ("joins it", ["work", digits[-1]])):
            starts[what].append(first_update(words))
    for what, seconds in starts.items():
        note(f"from the command to the first update of a worker that {what}", "s", seconds[1:])

    for name, unit, each in (
        ("10,000 trials of one update", "ms a trial", 0.1),
        ("180 trials of 300 epochs", "s", 1.0),
    ):
        together(place, name, 1)  # compiles
        taken: dict[int, list[tuple[float, float]]] = {1: [], WORKERS: []}
        for turn in range(TURNS):
            for count in (1, WORKERS) if turn % 2 else (WORKERS, 1):
                taken[count].append(together(place, name, count))
        for count, several in taken.items():
            who = f"{name}: {count} worker{'s' * (count > 1)}"
            note(who, unit, [each * seconds for seconds, _ in several])
            note(f"{who}, processor time", unit, [each * work for _, work in several])
        for at, kind in enumerate(("time", "processor time")):
            ratios = [four[at] / one[at] for one, four in zip(*taken.values(), strict=True)]
            note(f"{name}: the {kind} of {WORKERS} workers by that of 1", "ratio", ratios)

    parts = packs(place / "packs.py", place / "packs")
    for part in parts[0]:
        note(f"a pack of the smallest size: {part}", "ms", [each.get(part, 0.0) for each in parts[1:]])
    note("a pack of the smallest size: all of these", "ms", [sum(each.values()) for each in parts[1:]])
    for before in (0, 10_000):
        note(f"a commit on a folder of {before:,} commits", "ms", commits(place / f"commits-{before}", before))
    for count, trials, processes in ((1, 100_000, 1), (20, 100_000, 1), (1000, 64_000, 4)):
        for what, ms in leases(place / f"leases-{count}", count, trials, processes).items():
            note(what, "ms", ms)


def ray_against_one_process(results: Path, place: Path) -> None:
    """Measure the start and the packs of one process and of Ray with one device, in turns."""
    rows: list[dict[str, object]] = []
    taken: dict[tuple[str, str], list[float]] = {}
    for turn in range(TURNS + 1):  # the first fills the cache
        for engine in ("local", "ray") if turn % 2 else ("ray", "local"):
            folder, begun = place / f"{engine}-{turn}", time.time()
            done = subprocess.run(
                [sys.executable, "-c", COMMITS, engine, str(place / "packs.py"), str(folder)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            at = [float(line) for line in done.stdout.split()]
            if turn:
                taken.setdefault((engine, "from the command to the first commit, s"), []).append(at[0] - begun)
                packs = [1e3 * (later - earlier) for earlier, later in pairwise(at[20:])]
                taken.setdefault((engine, "a pack of the smallest size, ms"), []).append(statistics.median(packs))
        one, other = (sg.load(place / f"{engine}-{turn}") for engine in ("local", "ray"))
        assert one.numbers().equals(other.numbers())
        assert one.measurements.equals(other.measurements)
    for (engine, what), values in taken.items():
        rows.append({
            "engine": engine, "what": what, "n": len(values), "median": statistics.median(values),
            "lowest": min(values), "highest": max(values), "load": os.getloadavg()[0],
            "cores": len(os.sched_getaffinity(0)), "ray": version("ray"),
        })  # fmt: skip
    pl.DataFrame(rows).sort("what", "engine").write_csv(results / "ray.csv")


def write_readme(results: Path) -> None:
    """Write README.md from the tables that are there."""
    lines = ["# Workers on one folder", ""]
    if (path := results / "kills.csv").exists():
        rows = pl.read_csv(path)
        total = {name: rows[name].sum() for name in ("kills", "starting", "training", "waiting", "files_left")}
        lines += [
            f"`python benchmarks/workers.py kills RESULTS`: sgdscope {rows['sgdscope'][-1]}, jax {rows['jax'][-1]}, "
            f"{rows['cores'][-1]} cores.",
            "",
            f"- {WORKERS} workers trained one folder. {total['kills']} workers were killed (SIGKILL) at random moments "
            f"over {len(rows)} studies of {rows['trials'][-1]} trials: {total['training']} while they trained, "
            f"{total['waiting']} while they waited for others, {total['starting']} while they started.",
            "- Every study ended with the table of a single process, bit for bit. No trial was lost or doubled.",
            f"- After the next start, {total['files_left']} files of killed workers were left.",
            "",
        ]
    if (path := results / "times.csv").exists():
        rows, load = pl.read_csv(path), pl.read_csv(path)["load"].to_list()
        lines += [
            f"`python benchmarks/workers.py times RESULTS`: sgdscope {rows['sgdscope'][-1]}, jax {rows['jax'][-1]}, "
            f"{rows['cores'][-1]} cores, load {min(load):.1f} to {max(load):.1f} with what is measured itself."
            + BUSY
            * (load[0] > 2 * rows["cores"][0]),
            "",
            "| what | unit | n | median | lowest | highest |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {row['what']} | {row['unit']} | {row['n']} | {row['median']:.3g} | {row['lowest']:.3g} | "
                f"{row['highest']:.3g} |"
                for row in rows.iter_rows(named=True)
            ),
            "",
        ]
    if (path := results / "ray.csv").exists():
        rows = pl.read_csv(path)
        lines += [
            f"`python benchmarks/workers.py ray RESULTS`: Ray {rows['ray'][0]}, {rows['cores'][0]} cores, load "
            f"{rows['load'][0]:.1f}. The table of trials was that of one process, bit for bit.",
            "",
            "| what | engine | n | median | lowest | highest |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {row['what']} | {row['engine']} | {row['n']} | {row['median']:.3g} | {row['lowest']:.3g} | "
                f"{row['highest']:.3g} |"
                for row in rows.iter_rows(named=True)
            ),
            "",
        ]
    (results / "README.md").write_text("\n".join(lines))


def main(what: str, results: str, kills: str = "100") -> None:
    """Measure, and write the results."""
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        os.environ["SGDSCOPE_CACHE_DIR"] = str(place / "cache")
        for name, text in STUDIES.items():
            (place / f"{name}.py").write_text(text)
        if what == "kills":
            killed(folder, place, int(kills))
        elif what == "ray":
            ray_against_one_process(folder, place)
        else:
            times(folder, place)
    write_readme(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
