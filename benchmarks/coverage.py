"""How often the intervals of the analysis hold what was planted, and how often its verdicts are false.

For each law of the optimal rate, shape of the curves and number of seeds, studies are simulated with a known truth and
analysed as real ones are, with all resamples and knees. A table of shares is written after every round, so that a run
that is stopped leaves what it had found.

    python benchmarks/coverage.py [STUDIES] [--out FILE.csv]

Curves that are flat take long to fit, since most of their winners lie at the edge of the rates tried: a quarter of the
studies have them, and k is not fitted there.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
from rich.progress import track

from sgdscope.analysis.comparisons import octaves_between
from sgdscope.analysis.curve import constant_goodness
from sgdscope.analysis.optima import optimum_interval
from sgdscope.analysis.rate_choice import left_one_out, left_one_out_interval
from sgdscope.analysis.regimes import FEWEST_IN_REGIME, transition_limits
from sgdscope.analysis.score_limits import plateau_end, score_margin, threshold
from sgdscope.analysis.slopes import sharpness_of
from sgdscope.analysis.sweep import Cells
from sgdscope.analysis.transitions import knee_interval, slope_of, transition_of
from sgdscope.stats.equivalence import equivalence
from sgdscope.stats.intervals import resampled_seeds, t_interval
from sgdscope.stats.laws import fit_hinge, fit_line
from sgdscope.testing.simulated import (
    BATCH_SIZES,
    LAWS,
    PLATEAU,
    RECORD,
    SHAPES,
    SimulatedCell,
    Truth,
    simulate,
)

MARGIN = score_margin(PLATEAU, RECORD)
# Of a study whose rates bend, the batch sizes below the bend, log₂ B = 2 to 6.
NOISE = BATCH_SIZES[:5]
# SGD's score falls from 2^7.4 on: by less than the margin at 256, by more at 512.
LOSSES_FROM, LOSS_AN_OCTAVE = 7.4, 0.004
FIRST_LOST = 7
STUDIES_A_ROUND = 4

# Of what kind a share is: of intervals that hold the truth, of false verdicts, or of verdicts that are true.
HELD, FALSE, TRUE = "held", "false", "true"
Found = dict[tuple[str, str], tuple[float, float]]


@dataclass(frozen=True)
class Setting:
    """What is planted: the law of the optimal rate, the shape of the curves, seeds, and the step of the rates."""

    law: str
    shape: str
    n: int
    grid: float = 1.0


SETTINGS = [Setting(*of) for of in product(LAWS, SHAPES, (5, 10, 15))]
SETTINGS += [Setting("linear", "symmetric", n, 0.5) for n in (5, 10, 15)]


def falling(x: float) -> float:
    """Return by how much SGD's best score lies below the plateau."""
    return LOSS_AN_OCTAVE * max(0.0, x - LOSSES_FROM)


def margin_apart(x: float) -> float:
    """Return the same for momentum: it does not fall, but at one batch size it is worse by the margin."""
    return MARGIN if x == math.log2(NOISE[2]) else 0.0


def expected(truth: Truth, column: str, size: int, octaves: np.ndarray) -> np.ndarray:
    """Return the mean goodness of rates, diverged trials counting as the constant predictor."""
    loss = column == "train_loss"
    constant = constant_goodness(RECORD, "train_loss" if loss else "score")
    mean = -truth.mean_log_loss(size, octaves) if loss else truth.mean_score(size, octaves)
    share = truth.diverging(size, octaves)
    goodness: np.ndarray = (1 - share) * mean + share * constant
    return goodness


@lru_cache
def below_planted(truth: Truth, column: str) -> float:
    """Return how far the best expected rate is from the planted: near a cliff it is lower, since trials diverge."""
    octaves = np.linspace(-2, 1, 6001)
    size = BATCH_SIZES[0]
    return float(octaves[expected(truth, column, size, truth.octave(size) + octaves).argmax()])


def study(setting: Setting, number: int) -> Found:
    """Return of each quantity whether its interval held the truth, or its verdict was given, and the width."""
    rng = np.random.default_rng([number, zlib.crc32(repr(setting).encode())])
    truth = Truth(setting.law, setting.shape, grid=setting.grid, lost=falling)
    sgd, momentum = (simulate(rng, setting.n, replace(truth, lost=lost)) for lost in (falling, margin_apart))
    found: Found = {}
    found |= _optima(truth, sgd)
    found |= _rates(setting, truth, sgd, momentum)
    found |= _scores(truth, sgd, momentum)
    return found


def _holds(low: float, truth: float, high: float) -> tuple[float, float]:
    return float(low <= truth <= high), high - low


def _around(truth: float, interval: tuple[float, float, float]) -> tuple[float, float, float]:
    return interval[1], truth, interval[2]


def _cells(of: dict[int, SimulatedCell]) -> Cells:
    return Cells(list(of), [cell.curve("validation_score") for cell in of.values()])


def _optima(truth: Truth, sgd: dict[int, SimulatedCell]) -> Found:
    """Return the share of batch sizes whose interval of log₂ ε* holds the rate that is best on average."""
    found: Found = {}
    for name, column in (("score", "validation_score"), ("training loss", "train_loss")):
        held = []
        for size, cell in sgd.items():
            low, high, _ = optimum_interval(cell.curve(column))
            held.append(_holds(low, truth.octave(size) + below_planted(truth, column), high))
        share, width = np.mean(held, axis=0)
        found[HELD, f"x* for the {name}"] = float(share), float(width)
    return found


def _rates(setting: Setting, truth: Truth, sgd: dict[int, SimulatedCell], momentum: dict[int, SimulatedCell]) -> Found:
    """Return what is found of the law of the optimal rate."""
    found: Found = {}
    cells = _cells(sgd)
    planted = np.array([truth.octave(size) for size in sgd])
    row = transition_of(cells)
    low, _ = transition_limits(row)
    for regime, sizes in (("true", NOISE), ("found", [s for s in sgd if low is not None and s < low])):
        if regime == "found":
            found[TRUE, "three batch sizes found noise-dominated"] = float(len(sizes) >= FEWEST_IN_REGIME), math.nan
        if len(sizes) < FEWEST_IN_REGIME:
            continue
        inside = np.isin(cells.sizes, sizes)
        slope = slope_of(cells.of(sizes))
        is_slope = float(fit_line(cells.x[inside], planted[inside][None])[0])
        found[HELD, f"slope, {regime} regime"] = _holds(slope.low95, is_slope, slope.high95)
        linear = float(slope.verdict(0.75, 1.25) == "supported"), math.nan
        if setting.law == "square root":
            found[FALSE, f"square root called linear, {regime} regime"] = linear
        if setting.law in ("linear", "no transition in range"):
            found[TRUE, f"linear called linear, {regime} regime"] = linear
    identified = float(row["status"] == "identified"), math.nan
    if setting.law in ("constant", "no transition in range"):
        found[FALSE, "B_ε identified without a bend"] = identified
    else:
        transition = float(fit_hinge(cells.x, planted[None]).knee[0])
        found[TRUE, "B_ε identified"] = identified
        found[HELD, "B_ε"] = _holds(math.log2(row["transition_low"]), transition, math.log2(row["transition_high"]))
        found[HELD, "B_ε by winners on the grid"] = _holds(*_by_winners(cells, setting.n, transition))
    if setting.law in ("linear", "smooth") and setting.shape != "flat":
        sharp = sharpness_of(cells)
        soft_low, soft_high = (1 / sharp[end] if sharp[end] else 2.0 for end in ("k_high", "k_low"))
        found[HELD, f"k of the {setting.law}"] = _holds(soft_low, float(setting.law == "smooth"), soft_high)
        found[FALSE if setting.law == "smooth" else TRUE, f"{setting.law} called sharp"] = (
            float(sharp["k_low"] > 1),
            math.nan,
        )
    apart = {size: replace(momentum[size], rates=momentum[size].rates * 2**0.5) for size in NOISE}
    between = octaves_between(_cells(apart), cells.of(NOISE), 0.0)
    found[HELD, "octaves between optimizers"] = _holds(between.low95, 0.5, between.high95)
    found[FALSE, "rates half an octave apart called equal"] = (
        float(between.verdict(-0.5, 0.5) == "supported"),
        math.nan,
    )
    return found


def _by_winners(cells: Cells, n: int, transition: float) -> tuple[float, float, float]:
    """Return the interval of B_ε by another rule: the winners, moved by up to half a step of the grid at random."""
    drawn = resampled_seeds(n)
    whole, draws = (np.array([c.octaves[c.best(seeds)] for c in cells.curves]).T for seeds in (None, drawn))
    step = np.median([np.diff(c.octaves).mean() for c in cells.curves])
    moved = np.random.default_rng(1).uniform(-step / 2, step / 2, draws.shape)
    knee = float(fit_hinge(cells.x, whole, cells.bounds).knee[0])
    low, high = knee_interval(knee, fit_hinge(cells.x, draws + moved, cells.drawn_vertices()[1]).knee, n)
    return low, transition, high


def _scores(truth: Truth, sgd: dict[int, SimulatedCell], momentum: dict[int, SimulatedCell]) -> Found:
    """Return what is found of the best scores: thresholds, equivalence, and the score at the chosen rate."""
    found: Found = {}
    chosen = {size: int(cell.curve("validation_score").best()[0]) for size, cell in sgd.items()}
    scores = np.array([cell.curve("test_score").goodness[chosen[size]] for size, cell in sgd.items()])
    others = np.array(
        [c.curve("test_score").goodness[int(c.curve("validation_score").best()[0])] for c in momentum.values()]
    )
    end, _ = plateau_end(scores, MARGIN)
    found[HELD, "B_score"] = _holds(end.within, FIRST_LOST, end.beyond)
    lead = threshold(others - scores, MARGIN)
    found[HELD, "B_mom"] = _holds(lead.within, FIRST_LOST, lead.beyond)
    found[TRUE, "momentum's lead found"] = float(lead.beyond < len(BATCH_SIZES)), math.nan
    at_margin = equivalence(others[: len(NOISE)] - scores[: len(NOISE)], MARGIN)
    found[FALSE, "scores δ apart called equal"] = float(at_margin.verdict == "supported"), math.nan
    held: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number, (size, cell) in enumerate(sgd.items()):
        octaves, rate = np.log2(cell.rates), chosen[size]
        means = expected(truth, "test_score", size, octaves)
        _, low, high = t_interval(scores[number])
        held["score at the validated rate"].append(_holds(low, float(means[rate]), high))
        if not cell.diverged[rate].any():
            mean = float(truth.mean_score(size, octaves)[rate])
            held["score at the validated rate, of trials that do not diverge"].append(_holds(low, mean, high))
        curve = cell.curve("test_score")
        n = len(curve.seeds)
        others_choose = np.array([[seed for seed in range(n) if seed != left] for left in range(n)])
        mean = float(means[curve.best(others_choose)].mean())
        held["score, left one out"].append(_holds(*_around(mean, left_one_out_interval(curve))))
        held["score, left one out, by t alone"].append(_holds(*_around(mean, t_interval(left_one_out(curve)))))
    for name, of in held.items():
        share, width = np.mean(of, axis=0)
        found[HELD, name] = float(share), float(width)
    return found


def portion(task: tuple[Setting, int]) -> tuple[Setting, list[Found]]:
    """Return the studies of one setting in one round."""
    setting, number = task
    count = STUDIES_A_ROUND // 4 if setting.shape == "flat" else STUDIES_A_ROUND
    return setting, [study(setting, STUDIES_A_ROUND * number + k) for k in range(count)]


def summary(found: dict[Setting, list[Found]]) -> pl.DataFrame:
    """Return one row for each setting and quantity."""
    rows = []
    for setting in SETTINGS:
        values: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for of in found[setting]:
            for key, value in of.items():
                values[key].append(value)
        for (kind, quantity), pairs in values.items():
            shares, widths = np.array(pairs).T
            rows.append(
                vars(setting)
                | {"quantity": quantity, "kind": kind, "studies": len(pairs)}
                | {"share": shares.mean(), "error": shares.std() / math.sqrt(len(pairs))}
                | {"median_width": None if kind != HELD else float(np.median(widths))}
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def markdown(table: pl.DataFrame) -> str:
    """Return the shares over all settings by quantity and seeds, with the setting that comes out worst."""
    lines = ["| quantity | share of | n = 5 | n = 10 | n = 15 | width | worst setting |", "| --- " * 7 + "|"]
    for rows in table.partition_by("kind", "quantity", maintain_order=True):
        kind, quantity = rows["kind"][0], rows["quantity"][0]
        by_n = [_pooled(rows.filter(pl.col("n") == n)) for n in (5, 10, 15)]
        worst = rows.sort("share", descending=kind == FALSE).row(0, named=True)
        place = f"{worst['law']}, {worst['shape']}, n = {worst['n']}" + ("" if worst["grid"] == 1 else ", √2")
        width = rows["median_width"].median()
        lines.append(
            f"| {quantity} | {kind} | {' | '.join(by_n)} | {'' if width is None else f'{width:.2g}'} "
            f"| {worst['share']:.3f} ± {worst['error']:.3f} ({place}) |"
        )
    return "\n".join(lines) + "\n"


def outside(table: pl.DataFrame) -> str:
    """Return which settings hold less than .93 of the truths, or have more than .05 false verdicts, by shape."""
    wrong = ((pl.col("kind") == HELD) & (pl.col("share") < 0.93)) | (
        (pl.col("kind") == FALSE) & (pl.col("share") > 0.05)
    )
    lines = []
    for rows in table.filter(wrong).partition_by("kind", "quantity", "shape", maintain_order=True):
        quantity, shape = rows["quantity"][0], rows["shape"][0]
        of = table.filter((pl.col("quantity") == quantity) & (pl.col("shape") == shape))
        named = "; ".join(
            f"{row['law']}, n = {row['n']}: {row['share']:.3f} ± {row['error']:.3f}"
            for row in rows.sort("share").iter_rows(named=True)
        )
        everywhere = np.average(of["share"], weights=of["studies"])
        lines.append(
            f"- {quantity}, {shape} ({len(rows)} of {len(of)} settings; all together {everywhere:.3f}): {named}"
        )
    return "\n".join(lines) + "\n"


def _pooled(rows: pl.DataFrame) -> str:
    return f"{np.average(rows['share'], weights=rows['studies']):.3f}" if len(rows) else ""


def tasks(studies: int) -> Iterator[tuple[Setting, int]]:
    """Yield all settings, round by round."""
    for number in range(math.ceil(studies / STUDIES_A_ROUND)):
        for setting in SETTINGS:
            yield setting, number


def main(studies: int, out: Path) -> None:
    """Simulate on all cores, one thread each, and write the table and its summary."""
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[Setting, list[Found]] = defaultdict(list)
    todo = list(tasks(studies))
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        results = pool.imap(portion, todo)
        for count, (setting, of) in enumerate(track(results, "simulating", len(todo)), 1):
            found[setting] += of
            if count % len(SETTINGS) == 0:
                table = summary(found)
                table.with_columns(pl.col(pl.Float64).round(4)).write_csv(out)
                out.with_suffix(".md").write_text(markdown(table) + "\n" + outside(table))
    print(out.with_suffix(".md").read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="?", type=int, default=1000, help="simulated studies a setting")
    parser.add_argument("--out", type=Path, default=Path("results/coverage/coverage.csv"))
    arguments = parser.parse_args()
    main(arguments.studies, arguments.out)
