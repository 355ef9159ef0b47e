"""What the doors cost a study: ``run --log-to`` with each tracker, and ``run --live``.

    python benchmarks/doors.py RESULTS [MINUTES]

The same small study is trained by the command in processes of its own: plainly, with ``--live``, and with ``--log-to``
of each tracker that is installed, offline and in a folder of its own. All take turns: a round is one of each, in an
order that changes from round to round. Each is compared with the plain one of its round: the seconds until the results
are printed as a ratio, and the seconds of the whole command as a difference. Rounds are made until the minutes are over
(10 by default), at least one. The programs are compiled before.

Writes README.md and doors.csv into RESULTS.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import polars as pl

from sgdscope.trackers.log import MODULES, check_installed

# Three batch sizes of both regimes and as few seeds as a study should have.
STUDY = ("digits", "--batch-sizes", "16", "64", "256", "--seeds", "3")
COMMAND = (sys.executable, "-m", "sgdscope.cli", "run", *STUDY)


def installed() -> list[str]:
    """Return the trackers that are installed."""
    found = []
    for tracker in MODULES:
        try:
            check_installed([tracker])  # type: ignore[list-item]
        except ValueError:
            continue
        found.append(tracker)
    return found


def seconds(place: Path, options: tuple[str, ...]) -> tuple[float, float, float]:
    """Train the study in a new folder.

    Returns the seconds until its results are printed, those of the whole command, and those of processors.
    """
    offline = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{place / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(place),
        "TRACKIO_DIR": str(place / "trackio"),
        "SGDSCOPE_CACHE_DIR": str(place.parent / "cache"),
    }
    begun, results, used = time.perf_counter(), 0.0, processor_seconds()
    with subprocess.Popen(
        [*COMMAND, "--out", str(place / "study"), *options], env=os.environ | offline, cwd=place, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        said = []
        for line in running.stdout:
            said.append(line)
            if line.startswith("trained "):
                results = time.perf_counter() - begun
    whole = time.perf_counter() - begun
    assert running.returncode == 0, "".join(said)
    assert results, "".join(said)
    assert not any(" failed (" in line for line in said), "".join(said)
    return results, whole, processor_seconds() - used


def processor_seconds() -> float:
    """Return the processor time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Make the rounds, and write what they cost."""
    results, minutes = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    doors = {"plain": (), "--live": ("--live",)} | {f"--log-to {name}": ("--log-to", name) for name in installed()}
    rows, ends, draw = [], time.monotonic() + 60 * minutes, random.Random(0)
    with tempfile.TemporaryDirectory() as aside:

        def turn(name: str) -> dict[str, object]:
            place = Path(tempfile.mkdtemp(dir=aside))
            results_there, whole, used = seconds(place, doors[name])
            return {"door": name, "seconds_to_results": results_there, "seconds": whole, "processor_seconds": used}

        turn("plain")  # which compiles
        number = 0
        begun = time.monotonic()
        while number == 0 or time.monotonic() + (time.monotonic() - begun) / number < ends:
            for name in draw.sample(list(doors), len(doors)):
                rows.append({"round": number, **turn(name)})
                print(rows[-1], flush=True)
            number += 1
    table = pl.DataFrame(rows)
    results.mkdir(parents=True, exist_ok=True)
    table.write_csv(results / "doors.csv")
    (results / "README.md").write_text(page(table, minutes), encoding="utf-8")


def page(table: pl.DataFrame, minutes: float) -> str:
    """Return what was measured, as Markdown."""
    plain = table.filter(door="plain").drop("door")
    pairs = table.filter(pl.col("door") != "plain").join(plain, on="round", suffix="_plain")
    pairs = pairs.with_columns(
        ratio=pl.col("seconds_to_results") / pl.col("seconds_to_results_plain"),
        added=pl.col("seconds") - pl.col("seconds_plain"),
        used=pl.col("processor_seconds") - pl.col("processor_seconds_plain"),
    )
    lines = [
        f"| {door} | {spread(of['ratio'], 2)} | {spread(of['added'], 1)} | {spread(of['used'], 1)} |"
        for (door,), of in pairs.group_by("door", maintain_order=True)
    ]
    count, load = plain.height, os.getloadavg()[1]
    worst = pairs.group_by("door").agg(pl.col("used").median())["used"].max()
    assert isinstance(worst, float)
    return f"""# What the doors cost a study
`python benchmarks/doors.py RESULTS {minutes:g}`: sgdscope {version("sgdscope")}, jax {version("jax")}, \
{os.cpu_count()} cores, load {load:.0f} from this and other processes; rounds in each of which all doors take turns: \
{count}. Medians (lowest to highest) of ratios to, and differences from, the plain run of the same round, which took \
{spread(plain["seconds"], 0)} s, and {spread(plain["processor_seconds"], 0)} s of processors.

| door | seconds until the results are printed, ratio | seconds of the command, added | seconds of processors, added |
| --- | --- | --- | --- |
{chr(10).join(sorted(lines))}

Trackers log when the results are printed, so nothing is slowed before. What they add at the end is their import and the
writing of 6 runs and a report. It does not grow with the time of training: in seconds of processors, it is below 5 % of
any study that takes {20 * worst:.0f} s or more.
"""


def spread(values: pl.Series, digits: int) -> str:
    """Return the median of values, and the lowest and highest."""
    low, middle, high = (f"{of:.{digits}f}".replace("-", "−") for of in (values.min(), values.median(), values.max()))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


if __name__ == "__main__":
    main()
