"""What bfloat16 products do to the score, and to the time, of a study.

    python benchmarks/bfloat16.py RESULTS [STUDY] [SEEDS]

Runs a built-in study twice, with its searches, in float32 and in bfloat16 (`--compute-dtype`), and compares the test
score at the learning rates that validation chooses: the mean difference of each cell, seeds paired, with its 95 %
t interval, and the same over all cells, each seed's mean being one measurement. Seconds are those of an update of a
full pack at each batch size, medians of rounds in turns. Writes README.md and bfloat16.csv into RESULTS.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import polars as pl
from scipy.special import stdtrit

import sgdscope as sg
from sgdscope import studies
from sgdscope.training.jax_setup import configure_jax
from sgdscope.training.packed import PackedBackend
from sgdscope.training.step import Kind
from sgdscope.training.traced import trace

ROUNDS = 5
SLOTS = 16
CELL = ["workload", "budget", "optimizer", "batch_size"]


def scores_of(result: sg.Result) -> pl.DataFrame:
    """Return the test score of each seed at the rate that validation chooses in each cell."""
    chosen = result.optima.filter(pl.col("criterion") == "score").select(*CELL, "learning_rate")
    trials = result.trials.filter(pl.col("status") == "complete")
    return trials.join(chosen, on=[*CELL, "learning_rate"]).select(*CELL, "seed", "learning_rate", "test_score")


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return a mean and the half width of its 95 % interval."""
    half = stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def main(results: str, name: str = "digits", seeds: str = "15") -> None:
    configure_jax()
    study = studies.get(name).changed({"seeds": int(seeds)})
    found = {}
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            found[dtype] = scores_of(sg.run(study.changed({"compute_dtype": dtype}), Path(folder) / "study"))
    both = found["float32"].join(found["bfloat16"], on=[*CELL, "seed"], suffix="_bfloat16")
    both = both.with_columns(difference=pl.col("test_score_bfloat16") - pl.col("test_score"))

    slots = None if jax.default_backend() == "cpu" else SLOTS
    traced = trace(study.workloads[0])
    backends = {dtype: PackedBackend(traced, compute_dtype=dtype, slots=slots) for dtype in ("float32", "bfloat16")}
    ratio = {}
    for size in study.batch_sizes:
        taken: dict[str, list[float]] = {dtype: [] for dtype in backends}
        kind = Kind.of(study.declaration().trial(sg.SGD(), size, 1.0, 0))
        for backend in backends.values():
            backend.seconds_per_update(kind)
        for _ in range(ROUNDS):
            for dtype, backend in backends.items():
                taken[dtype].append(backend.seconds_per_update(kind))
        ratio[size] = statistics.median(taken["bfloat16"]) / statistics.median(taken["float32"])
    for backend in backends.values():
        backend.close()

    rows = []
    for key, cell in both.sort(CELL).group_by(CELL, maintain_order=True):
        mean, half = interval(cell["difference"].to_numpy())
        float32, bfloat16 = (cell[column].mean() for column in ("test_score", "test_score_bfloat16"))
        rows.append(
            dict(zip(CELL, key, strict=True))
            | {"n": len(cell), "float32": float32, "bfloat16": bfloat16, "difference": mean, "half_width": half}
            | {"rate_float32": cell["learning_rate"][0], "rate_bfloat16": cell["learning_rate_bfloat16"][0]}
            | {"seconds_ratio": ratio[cell["batch_size"][0]]}
        )
    table = pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round_sig_figs(4))
    of_seeds = both.group_by("seed").agg(pl.col("difference").mean())["difference"].to_numpy()
    mean, half = interval(of_seeds)
    folder = Path(results)
    folder.mkdir(parents=True, exist_ok=True)
    table.write_csv(folder / "bfloat16.csv")
    device = f"{jax.device_count()} {jax.devices()[0].device_kind} devices"
    lines = [
        "# Products in bfloat16",
        f"`python benchmarks/bfloat16.py RESULTS {name} {seeds}`: sgdscope {version('sgdscope')}, jax "
        f"{version('jax')}, {device}. The study twice, with its searches; seeds paired. Test score in bfloat16 less "
        f"that in float32, over all {len(table)} cells: {mean:+.5f} ± {half:.5f} (95 % t interval, n = {len(of_seeds)} "
        "seeds).",
        "",
        "| optimizer | batch size | float32 | bfloat16 | difference | n | rates | time of an update |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['optimizer']} | {row['batch_size']:,} | {row['float32']:.4f} | {row['bfloat16']:.4f} | "
        f"{row['difference']:+.4f} ± {row['half_width']:.4f} | {row['n']} | {row['rate_float32']:g}, "
        f"{row['rate_bfloat16']:g} | × {row['seconds_ratio']:.2f} |"
        for row in table.iter_rows(named=True)
    ]
    (folder / "README.md").write_text("\n".join([*lines, ""]))
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
