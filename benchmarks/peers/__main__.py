"""The built-in study `digits` against what a user would run today, in one run, side by side.

    pip install torch 'ray[tune]'
    python benchmarks/peers RESULTS [ROUNDS [SHARE]]

Every peer trains the same network on the same pictures with the same schedule, rates, momenta and numbers of updates
as the study's own trials, and scores it once. PyTorch packed trains all of them. The others train every SHARE-th, in
order of batch size, so that their share of the updates is the same; the seconds of all are extrapolated by the
updates, those of Ray Tune by the trials, since most of its time goes into their processes. What does not grow with
the trials, starting Ray and compiling, is counted once. Rounds take turns, so that what else the machine does meets
all alike. All of them use the CPU, also where there is a GPU. Seconds do not hold starting Python and its imports,
but for sgdscope, whose seconds are the whole command's with its page. Writes README.md and peers.csv into RESULTS.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import polars as pl
from trials import Report, Trial

import sgdscope as sg

HERE = Path(__file__).parent
ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
# A full grid of half octaves from 2⁻¹² to 2³ at each of 18 cells with 5 seeds, which finds the same optima:
# results/search.
GRID_TRIALS = 2790
PEERS = {
    "ray_tune": "Ray Tune, plain PyTorch, one process a trial",
    "pytorch_loop": "plain PyTorch, one process",
    "pytorch_packed": "PyTorch, `torch.func` over models, compiled",
    "jax_loop": "plain JAX, one trial at a time",
}
WHOLE = "pytorch_packed"


def run_ours(cache: Path, folder: Path) -> float:
    """Return the seconds of the command, from its start to its page."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "sgdscope.cli", "run", "digits", "--out", str(folder)],
        capture_output=True,
        check=True,
        env=os.environ | ON_CPU | {"SGDSCOPE_CACHE_DIR": str(cache)},
    )
    return time.perf_counter() - begun


def run_peer(peer: str, trials: list[Trial], cache: Path) -> Report:
    """Train trials in a process of their own, with an empty cache for what PyTorch compiles."""
    done = subprocess.run(
        [sys.executable, str(HERE / f"{peer}.py")],
        input=json.dumps([asdict(trial) for trial in trials]),
        capture_output=True,
        text=True,
        env=os.environ
        | ON_CPU
        | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "RAY_AIR_NEW_OUTPUT": "0", "RAY_DEDUP_LOGS": "0"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}")
    return Report(**json.loads(done.stdout.splitlines()[-1]))


def trials_of(table: pl.DataFrame) -> list[Trial]:
    """Return the trials of a table, in its order."""
    rows = table.iter_rows(named=True)
    momentum = lambda optimizer: float(optimizer.partition(":")[2] or 0)
    return [Trial(r["batch_size"], r["learning_rate"], momentum(r["optimizer"]), r["seed"]) for r in rows]


def round_of(table: pl.DataFrame | None, share: int, rows: list[dict]) -> pl.DataFrame:
    """Run everything once, and add a row for each; return the trials of the study, by batch size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("cold", "warm"):
            seconds = run_ours(folder / "cache", folder / kind)
            mine = sg.Result(folder / kind).trials
            rows.append({"what": f"sgdscope, {kind} cache", "trials": len(mine), "extrapolated": seconds})
        table = mine.sort("batch_size", "optimizer", "learning_rate", "seed") if table is None else table
        everything = trials_of(table)
        updates = lambda trials: sum(trial.updates for trial in trials)
        own = dict(zip(everything, table["test_score"], strict=True))
        for peer, title in PEERS.items():
            trials = everything if peer == WHOLE else everything[share // 2 :: share]
            found = run_peer(peer, trials, folder / peer)
            of = len(everything) / len(trials) if peer == "ray_tune" else updates(everything) / updates(trials)
            ahead = [a - own[trial] for a, trial in zip(found.accuracies, trials, strict=True)]
            rows.append(
                {
                    "what": title,
                    "trials": len(trials),
                    "ready": found.ready,
                    "training": found.training,
                    "extrapolated": found.ready + found.training * of,
                    "steady": found.training * of,
                    "accuracy_ahead": statistics.mean(ahead),
                    "accuracy_error": statistics.stdev(ahead) / len(ahead) ** 0.5,
                }
            )
            print(rows[-1], flush=True)
    return table


def written(table: pl.DataFrame, rounds: int, share: int) -> str:
    """Return the results as a page."""
    grouped = table.group_by("what", maintain_order=True)
    by_what = {what: rows for (what,), rows in grouped}
    cold, warm = (by_what[f"sgdscope, {kind} cache"]["extrapolated"] for kind in ("cold", "warm"))
    spread = lambda values: f"{values.median():.3g} ({values.min():.3g} to {values.max():.3g})"
    lines = [
        "# `digits` against what a user would run today",
        f"`python benchmarks/peers RESULTS {rounds} {share}`: {len(os.sched_getaffinity(0))} cores, "
        + ", ".join(f"{name} {version(name)}" for name in ("sgdscope", "jax", "torch", "ray"))
        + f"; n = {rounds} rounds, medians (lowest to highest). Ratios are of the same round.",
        "",
        f"The study is {by_what['sgdscope, cold cache']['trials'][0]} trials of 30 epochs, with its search, analysis "
        f"and page: {spread(cold)} s with an empty compilation cache, {spread(warm)} s with a filled one.",
        "",
        "| peer, the same trials | trials timed | s, compiling and starting | s, the whole study | × sgdscope, cold | "
        "× sgdscope, warm | accuracy ahead of ours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title in PEERS.values():
        rows = by_what[title]
        ahead = f"{100 * rows['accuracy_ahead'].mean():+.2f} ± {200 * rows['accuracy_error'].mean():.2f} points"
        lines.append(
            f"| {title} | {rows['trials'][0]} | {spread(rows['ready'])} | {spread(rows['extrapolated'])} | "
            f"{spread(rows['extrapolated'] / cold)} | {spread(rows['extrapolated'] / warm)} | {ahead} |"
        )
    packed, ray = by_what[PEERS[WHOLE]], by_what[PEERS["ray_tune"]]
    ours = by_what["sgdscope, cold cache"]["trials"][0]
    grid = ray["ready"] + (ray["extrapolated"] - ray["ready"]) * GRID_TRIALS / ours
    lines += [
        "",
        f"PyTorch packed without its compiling takes {spread(packed['steady'])} s, "
        f"{spread(packed['steady'] / warm)} of the whole command of sgdscope with a filled cache.",
        "",
        f"Ray Tune over the full grid of {GRID_TRIALS:,} trials, to the same optima (results/search): {spread(grid)} "
        f"s, {spread(grid / cold)} times sgdscope's search with an empty cache, {spread(grid / warm)} with a filled "
        "one.",
        "",
    ]
    return "\n".join(lines)


def main(results: str, rounds: int = 3, share: int = 10) -> None:
    """Run the rounds and write the results."""
    rows: list[dict] = []
    table = None
    for number in range(rounds):
        table = round_of(table, share, rows)
        print(f"round {number + 1} of {rounds}", flush=True)
    kept = pl.DataFrame(rows, infer_schema_length=None)
    Path(results).mkdir(parents=True, exist_ok=True)
    rounded = kept.with_columns(pl.col(pl.Float64).round_sig_figs(5))
    rounded.write_csv(Path(results) / "peers.csv")
    Path(results, "README.md").write_text(written(kept, rounds, share))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
