"""What it costs, and what it decides, to spend seeds where the question is.

    python benchmarks/seeds.py planted [--studies N] [--out FOLDER]
    python benchmarks/seeds.py digits CACHE [--studies N] [--out FOLDER]
    python benchmarks/seeds.py looks

``planted`` draws trials with known means: two optimizers, five batch sizes, a network's luck that validation and test
split share. ``digits`` draws seeds from a grid of the built-in study with 60 seeds of each rate, which is trained into
folders under CACHE; its means over all 60 stand for the truth. Either way the search itself asks for the trials of each
scheme, and the tables that users see are made of them. ``looks`` counts false verdicts over all looks.
"""

from __future__ import annotations

import argparse
import functools
import math
import multiprocessing
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import sgdscope as sg
from sgdscope.advice.advice import Advice
from sgdscope.advice.until_decided import raised
from sgdscope.analysis.tables import Tables
from sgdscope.budget import Epochs
from sgdscope.engine.search import learning_rate, search
from sgdscope.optimizers import SGD
from sgdscope.result import Result
from sgdscope.store import TRIALS_SCHEMA
from sgdscope.study import Declaration, Trial
from sgdscope.testing.simulated import PLATEAU, RECORD

BATCH_SIZES = (4, 16, 64, 256, 1024)
MARGIN = 0.004
MOST_SEEDS = 60
# Of the grid of digits: the best rates in half octaves, as results/digits has them.
DIGITS_BATCH_SIZES = (8, 16, 64, 256, 1024)
CENTRES = {"sgd": (-4, -3, -2, -2, -2), "momentum:0.9": (-12, -9, -6, -4, -4)}
OPTIMIZERS = (SGD(), SGD(momentum=0.9))
SCHEMES: dict[str, int | sg.Seeds] = {
    "5": 5,
    "15": 15,
    "30": 30,
    "5,10,30": sg.Seeds(5, 10, 30),
}
# What a look of `run --until-decided` raises: the best rate, where a question is open.
UNTIL_DECIDED = "until decided"


# ── Where trials come from ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Truth:
    """The mean test scores of a cell's rates, by half octaves, and the trials that there are of each."""

    means: dict[int, float]
    row: Callable[[int, int], dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """A study to draw from: its declaration without seeds, and the truth of each cell by optimizer and batch size."""

    declaration: Declaration
    cells: dict[tuple[str, int], Truth]
    margin: float

    def train(self, trials: Sequence[Trial]) -> pl.DataFrame:
        """Return the rows of some trials."""
        rows = []
        for trial in trials:
            place = round(2 * math.log2(trial.learning_rate))
            drawn = self.cells[str(trial.optimizer), trial.batch_size].row(place, trial.seed)
            rows.append(_named(trial) | drawn)
        return pl.DataFrame(rows, schema=TRIALS_SCHEMA)


def _named(trial: Trial) -> dict[str, Any]:
    return dict.fromkeys(TRIALS_SCHEMA) | {
        "trial_id": trial.id,
        "workload": trial.workload.name,
        "optimizer": str(trial.optimizer),
        "batch_size": trial.batch_size,
        "learning_rate": trial.learning_rate,
        "effective_learning_rate": trial.optimizer.effective_learning_rate(trial.learning_rate),
        "budget": str(trial.budget),
        "seed": trial.seed,
        "steps": trial.updates,
    }


@dataclass(frozen=True)
class Planted:
    """A kind of study: how steep its curves are, how much scores scatter, and what part of it the splits share."""

    name: str
    height: float
    spread: float
    luck: float
    lost: float = 0.004


KINDS = (
    Planted("steep curves", height=0.010, spread=0.006, luck=0.5),
    Planted("flat curves, wide scatter", height=0.002, spread=0.012, luck=0.8),
)


def planted(kind: Planted, number: int) -> Source:
    """Return a study whose truth is known: SGD's score falls from batch size 128 on, momentum's from 512 on."""
    rng = np.random.default_rng([number, zlib.crc32(kind.name.encode())])
    declared = Declaration(
        name="planted", workloads=RECORD, optimizers=OPTIMIZERS, batch_sizes=BATCH_SIZES, budgets=Epochs(30),
        score_margin=MARGIN,
    )  # fmt: skip
    own = rng.normal(size=MOST_SEEDS) * kind.spread * math.sqrt(0.2)
    cells = {}
    for optimizer in OPTIMIZERS:
        for size in BATCH_SIZES:
            x = math.log2(size)
            best = min(x, 6.3) - 8.2 + rng.uniform(-0.25, 0.25)
            if optimizer.momentum:
                best = min(x, 8.3) - 8.2 - math.log2(10) + rng.uniform(-0.25, 0.25)
            falls = max(0.0, x - (8.5 if optimizer.momentum else 6.5)) * kind.lost
            cells[str(optimizer), size] = _planted_cell(kind, rng, 2 * best, PLATEAU - falls, own)
    return Source(declared, cells, MARGIN)


def _planted_cell(kind: Planted, rng: np.random.Generator, best: float, top: float, own: np.ndarray) -> Truth:
    places = range(round(best) - 24, round(best) + 25)
    octaves = (np.array(places) - best) / 2
    mean = np.maximum(0.11, top - kind.height * np.where(octaves > 0, 2, 1) * octaves**2)
    shape = (len(places), MOST_SEEDS)
    whole = mean[:, None] + own + rng.normal(size=shape) * kind.spread * math.sqrt(0.8 * kind.luck)
    rest = kind.spread * math.sqrt(0.8 * (1 - kind.luck))
    split = [np.clip(whole + rng.normal(size=shape) * rest, 0, 1) for _ in range(2)]
    validation, test = (
        np.round(values * count) / count for values, count in zip(split, RECORD.examples[1:], strict=True)
    )
    loss = np.exp(-3 + 0.3 * octaves[:, None] ** 2 + rng.normal(size=shape) * 0.15)
    diverged = (octaves > 3)[:, None] & np.ones(shape, bool)
    index = {place: number for number, place in enumerate(places)}

    def row(place: int, seed: int) -> dict[str, Any]:
        at = index[place], seed
        if diverged[at]:
            return {"status": "diverged"}
        values = {"validation_score": validation[at], "test_score": test[at], "train_loss": loss[at]}
        return {"status": "complete"} | {name: float(value) for name, value in values.items()}

    return Truth(dict(zip(places, mean.tolist(), strict=True)), row)


def train_grid(cache: Path) -> None:
    """Train 60 seeds at the 12 half octaves around each cell's best rate, as far as the folders lack them."""
    study = sg.load_study("digits")
    for optimizer, centres in CENTRES.items():
        (rule,) = (rule for rule in study.optimizers if str(rule) == optimizer)
        for size, centre in zip(DIGITS_BATCH_SIZES, centres, strict=True):
            rates = [learning_rate(k) for k in range(centre - 6, centre + 6)]
            changes = {"optimizers": rule, "batch_sizes": size, "learning_rates": rates, "seeds": MOST_SEEDS}
            sg.run(study.changed(changes | {"evaluate_at": 1.0}), cache / f"{optimizer.replace(':', '_')}-{size}")


@functools.cache
def digits_grid(cache: Path) -> tuple[Declaration, dict[tuple[str, int], dict[tuple[int, int], dict[str, Any]]]]:
    """Return the built-in study, and the rows of its full grid by cell, half octaves and seed."""
    found: dict[tuple[str, int], dict[tuple[int, int], dict[str, Any]]] = {}
    for folder in sorted(path.parent for path in cache.glob("*/study.json")):
        for row in Result(folder).trials.iter_rows(named=True):
            of_cell = found.setdefault((row["optimizer"], row["batch_size"]), {})
            of_cell[round(2 * math.log2(row["learning_rate"])), row["seed"]] = row
    sizes = sorted({size for name, size in found if all((str(o), size) in found for o in OPTIMIZERS)})
    whole = {key: rows for key, rows in found.items() if key[1] in sizes and len(rows) % MOST_SEEDS == 0}
    declared = sg.load_study("digits").changed({"batch_sizes": sizes, "score_margin": MARGIN}).declaration()
    return declared, whole


def digits(cache: Path, number: int) -> Source:
    """Return a study whose seeds are drawn from those of the grid, without putting back."""
    declared, grid = digits_grid(cache)
    order = np.random.default_rng(number).permutation(MOST_SEEDS).tolist()
    constant = declared.workloads[0].constant_score
    cells = {}
    for key, rows in grid.items():
        places = sorted({place for place, _ in rows})
        scores: dict[int, list[float]] = {place: [] for place in places}
        for (place, _), row in rows.items():
            scores[place].append(constant if row["test_score"] is None else row["test_score"])
        means = {place: float(np.mean(of)) for place, of in scores.items()}

        def row_of(
            place: int, seed: int, rows: dict[tuple[int, int], dict[str, Any]] = rows, places: list[int] = places
        ) -> dict[str, Any]:
            # What lies beyond the grid is taken for its end: the search goes there only where few seeds mislead it.
            row = rows[min(max(place, places[0]), places[-1]), order[seed]]
            return {name: row[name] for name in ("status", "validation_score", "test_score", "train_loss")}

        cells[key] = Truth(means, row_of)
    return Source(declared, cells, MARGIN)


# ── One study by one scheme ──────────────────────────────────────────────────────────────────────────────────


def searched(source: Source, declared: Declaration, trials: pl.DataFrame) -> pl.DataFrame:
    """Return the trials that the search asks for, and no others."""
    while pending := (found := search(declared, trials)).pending:
        trials = pl.concat([trials, source.train(pending)])
    return trials.filter(pl.col("trial_id").is_in([trial.id for trial in found.trials]))


def by_scheme(source: Source, scheme: str) -> tuple[Tables, Advice]:
    """Return the tables of a study that spends its seeds by one scheme, and its advice."""
    seeds: int | sg.Seeds = SCHEMES.get(scheme, sg.Seeds(5, 10))
    declared = replace(source.declaration, seeds=seeds)
    trials = searched(source, declared, pl.DataFrame(schema=TRIALS_SCHEMA))
    records = {record.name: record for record in declared.workloads}
    while True:
        tables = Tables(trials, records, source.margin)
        if scheme != UNTIL_DECIDED or not (more := raised(declared, tables, MOST_SEEDS)):
            return tables, Advice(tables)
        declared = replace(declared, seeds_at=more)
        trials = searched(source, declared, trials)


def measured(source: Source, scheme: str) -> list[dict[str, Any]]:
    """Return what one study by one scheme finds: a row for each cell, and one for each verdict."""
    tables, advice = by_scheme(source, scheme)
    rows: list[dict[str, Any]] = []
    best = {key: max(truth.means.values()) for key, truth in source.cells.items()}
    for row in tables.optima.filter(criterion="score").iter_rows(named=True):
        truth = source.cells[row["optimizer"], row["batch_size"]].means
        place = round(2 * math.log2(row["learning_rate"]))
        true = truth[min(max(place, min(truth)), max(truth))]
        rows.append(
            {"scheme": scheme, "kind": "score", "cell": f"{row['optimizer']} {row['batch_size']}"}
            | {"trials": row["trials"], "error": row["test_score"] - true, "regret": max(truth.values()) - true}
            | {"held": float(row["test_score_low"] <= true <= row["test_score_high"])}
        )
    for row in advice.costs.iter_rows(named=True):
        if row["batch_size"] == min(source.declaration.batch_sizes):
            continue
        loss = max(of for (name, size), of in best.items() if name == row["optimizer"] and size < row["batch_size"])
        loss -= best[row["optimizer"], row["batch_size"]]
        false = (row["verdict"] == "worse" and loss <= source.margin) or (
            row["verdict"] == "equivalent" and loss > source.margin
        )
        rows.append(_verdict(scheme, "loss", row, row["verdict"] in ("worse", "equivalent"), false))
    for row in advice.leads.filter(over="equal batch sizes").iter_rows(named=True):
        ahead = best[row["optimizer"], row["batch_size"]] - best["sgd", row["batch_size"]]
        false = {
            "better": ahead <= source.margin,
            "worse": ahead >= -source.margin,
            "equivalent": abs(ahead) >= source.margin,
        }.get(row["verdict"], False)
        rows.append(_verdict(scheme, "lead", row, row["verdict"] in ("better", "worse", "equivalent"), false))
    return rows


def _verdict(scheme: str, kind: str, row: dict[str, Any], decided: bool, false: bool) -> dict[str, Any]:
    cell = f"{row['optimizer']} {row['batch_size']}"
    return {"scheme": scheme, "kind": kind, "cell": cell, "decided": float(decided), "false": float(false)}


def looks(studies: int = 200_000, margin: float = 1.0, deviation: float = 2.0) -> str:
    """Return how often a difference that is the margin is called smaller or larger, by when the seeds end.

    Worst for both verdicts, and each test is at 2.5 %. A run that stopped at the first verdict of the tables, without
    stricter looks, is shown beside.
    """
    from scipy import special

    from sgdscope.advice.until_decided import INTERIM_ALPHA
    from sgdscope.seeds import LOOKS

    counts = [look - 5 for look in LOOKS if look >= 15]  # that report, where 5 choose
    drawn = np.random.default_rng(0).normal(margin, deviation, (studies, counts[-1])) - margin
    lines = ["| stops at | called smaller | called larger | both |", "| --- | --- | --- | --- |"]
    ends = (("looks of `--until-decided`", INTERIM_ALPHA / 2), ("the first verdict", 0.025), ("the last look", 0.0))
    for name, level in ends:
        running, verdict = np.ones(studies, bool), np.zeros(studies)
        for n in counts:
            t = drawn[:, :n].mean(axis=1) / drawn[:, :n].std(axis=1, ddof=1) * math.sqrt(n)
            p = special.stdtr(n - 1, -np.abs(t))
            ending = running & ((p < level) | (n == counts[-1]))
            verdict[ending] = np.where(p < 0.025, np.sign(t), 0)[ending]
            running &= ~ending
        smaller, larger = (float((verdict == sign).mean()) for sign in (-1, 1))
        lines.append(f"| {name} | {smaller:.4f} | {larger:.4f} | {smaller + larger:.4f} |")
    return "\n".join(lines) + "\n"


# ── All studies ──────────────────────────────────────────────────────────────────────────────────────────────


def portion(task: tuple[str, int, Path | None]) -> list[dict[str, Any]]:
    """Return the rows of one drawn study by every scheme."""
    name, number, cache = task
    Declaration.trial = functools.cache(Declaration.trial)  # type: ignore[method-assign]
    kind = {kind.name: kind for kind in KINDS}.get(name)
    source = digits(cache, number) if kind is None and cache is not None else planted(kind or KINDS[0], number)
    # Looks take the most time: every second study.
    schemes = (*SCHEMES, UNTIL_DECIDED) if number % 2 == 0 else tuple(SCHEMES)
    rows = [row for scheme in schemes for row in measured(source, scheme)]
    return [row | {"study": name, "number": number} for row in rows]


def summary(rows: pl.DataFrame) -> pl.DataFrame:
    """Return one row for each kind of study and scheme; errors in points of accuracy."""
    of_score = rows.filter(kind="score")
    by_cell = of_score.group_by("study", "scheme", "cell", maintain_order=True).agg(
        pl.col("trials").mean(),
        flattery=100 * pl.col("error").mean(),
        deviation=100 * pl.col("error").std(),
        regret=100 * pl.col("regret").mean(),
        held=pl.col("held").mean(),
        n=pl.len(),
    )
    scores = by_cell.group_by("study", "scheme", maintain_order=True).agg(
        pl.col("n").first().alias("studies"),
        pl.col("trials", "regret", "held").mean(),
        standard_error=(pl.col("deviation") ** 2).mean().sqrt(),
        flattery=pl.col("flattery").mean(),
        worst_flattery=pl.col("flattery").max(),
        worst_held=pl.col("held").min(),
    )
    found = scores
    for kind in ("loss", "lead"):
        verdicts = rows.filter(kind=kind).group_by("study", "scheme", maintain_order=True).agg(
            pl.col("decided").mean().alias(f"{kind}_decided"), pl.col("false").mean().alias(f"{kind}_false")
        )  # fmt: skip
        any_false = (
            rows.filter(kind=kind).group_by("study", "scheme", "number").agg(pl.col("false").max())
            .group_by("study", "scheme").agg(pl.col("false").mean().alias(f"{kind}_any_false"))
        )  # fmt: skip
        found = found.join(verdicts, on=["study", "scheme"]).join(any_false, on=["study", "scheme"])
    return found


def markdown(table: pl.DataFrame) -> str:
    """Return the summary as a table of a README."""
    names = [
        "study", "seeds", "trials a cell", "standard error", "flattery", "worst cell", "below the best rate",
        "intervals that hold", "worst cell", "losses decided", "false", "leads decided", "false",
    ]  # fmt: skip
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for r in table.iter_rows(named=True):
        cells = [r["study"], r["scheme"], f"{r['trials']:.0f}", f"{r['standard_error']:.3f}", f"{r['flattery']:+.3f}"]
        cells += [f"{r['worst_flattery']:+.2f}", f"{r['regret']:.3f}", f"{r['held']:.3f}", f"{r['worst_held']:.2f}"]
        for kind in ("loss", "lead"):
            cells += [f"{r[f'{kind}_decided']:.2f}", f"{r[f'{kind}_false']:.3f} ({r[f'{kind}_any_false']:.2f})"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def tasks(what: str, cache: Path | None, studies: int) -> Iterator[tuple[str, int, Path | None]]:
    """Yield the studies to draw, all kinds in turn."""
    for number in range(studies):
        for name in [kind.name for kind in KINDS] if what == "planted" else ["digits"]:
            yield name, number, cache


def main(what: str, cache: Path | None, studies: int, out: Path) -> None:
    """Draw studies on all cores, and write the table after each ten."""
    os.environ |= dict.fromkeys(
        ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
    )
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for count, of in enumerate(pool.imap(portion, list(tasks(what, cache, studies))), 1):
            rows += of
            if count % 10 == 0:
                table = summary(pl.DataFrame(rows, infer_schema_length=None))
                table.with_columns(pl.col(pl.Float64).round(5)).write_csv(out / f"{what}.csv")
                (out / f"{what}.md").write_text(markdown(table))
    print((out / f"{what}.md").read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("planted", "digits", "looks"))
    parser.add_argument("cache", nargs="?", type=Path)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("results/seeds"))
    arguments = parser.parse_args()
    if arguments.what == "looks":
        print(looks())
        sys.exit()
    if arguments.what == "digits":
        train_grid(arguments.cache)
    main(arguments.what, arguments.cache, arguments.studies, arguments.out)
