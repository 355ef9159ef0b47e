"""How often the intervals of the analysis hold what was planted, and how often its verdicts are false.

For each law of the optimal rate, shape of the curves and number of seeds, studies are simulated with a known truth and
analysed as real ones are. A table of shares is written after every round, so that a run that is stopped leaves what it
had found.

    python benchmarks/coverage.py [STUDIES] [--out FILE.csv]

Curves are symmetric, steeper on one side, steeper on another side above the transition, flat, or end at a cliff beyond
which trials diverge or collapse; steepness, cliff and scatter may change with the batch size. Validation and test
scores may share the network's luck, trials may be missing, and rates may have unequal seeds by design. The bootstrap
draws seeds 300 times, not 2,000: its standard error is off by 4 %, which makes intervals hold a little less.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.progress import track

from sgdscope.analysis.comparisons import octaves_between
from sgdscope.analysis.curve import MOST_FAILED
from sgdscope.analysis.failures import distance_to_failure
from sgdscope.analysis.goodness import constant_goodness
from sgdscope.analysis.optima import optimum_interval
from sgdscope.analysis.rate_choice import left_one_out_interval
from sgdscope.analysis.regimes import FEWEST_IN_REGIME, transition_limits
from sgdscope.analysis.saturation import Outcome, saturated
from sgdscope.analysis.score_limits import plateau_end, score_margin, threshold
from sgdscope.analysis.slopes import sharpness_of
from sgdscope.analysis.sweep import Cells
from sgdscope.analysis.transitions import IDENTIFIED, NOWHERE, THROUGHOUT, slope_of, transition_of
from sgdscope.budget import Unlimited
from sgdscope.claims.batch_sizes import SHARP, SMOOTH, sharp_verdict
from sgdscope.claims.finding import DOWN
from sgdscope.stats import intervals
from sgdscope.stats.equivalence import equivalence
from sgdscope.stats.intervals import interval_with_failures, t_interval
from sgdscope.stats.laws import fit_hinge, fit_line
from sgdscope.testing.simulated import (
    BATCH_SIZES,
    LAWS,
    LAWS_BETWEEN,
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
# Shapes of curves beyond whose optimum trials fail; a planted slope nearer to 0 than this is rounding.
FAILING, ROUNDING = ("cliff", "collapse"), 1e-3
STUDIES_A_ROUND = 10
RESAMPLES = 300

# Of what kind a share is: of intervals that hold the truth, of false verdicts, or of verdicts that are true.
HELD, FALSE, TRUE = "held", "false", "true"
Found = dict[tuple[str, str], tuple[float, float]]


@dataclass(frozen=True)
class Setting:
    """What is planted: the law of the optimal rate, the shape of the curves, seeds, and the step of the rates."""

    law: str
    shape: str
    n: int
    grid: float = 0.0
    changing: float = 0.0
    luck: float = 0.0
    missing: float = 0.0
    designed: bool = False

    def truth(self, lost: Callable[[float], float]) -> Truth:
        """Return what is planted, with what the best score of a batch size lies below the plateau."""
        fields = {name: getattr(self, name) for name in ("law", "shape", "grid", "changing", "luck", "missing")}
        return Truth(**fields, lost=lost)

    @property
    def named(self) -> str:
        """What is special to it."""
        extras = [name for name in ("luck", "missing", "designed") if getattr(self, name)]
        if self.changing:
            extras.insert(0, "nearing" if self.changing > 0 else "receding")
        return ", ".join([self.law, self.shape, *extras, f"{self.n} seeds"])


SEEDS = (5, 15)
SETTINGS = [Setting(law, "symmetric", n) for law in LAWS for n in SEEDS]
SETTINGS += [Setting("linear", shape, n) for shape in SHAPES if shape != "symmetric" for n in SEEDS]
SETTINGS += [Setting("no transition in range", "turning", n) for n in SEEDS]
SETTINGS += [Setting("linear", shape, n, changing=1.0) for shape in ("turning", "collapse") for n in SEEDS]
SETTINGS += [Setting("linear", shape, n, changing=-0.5) for shape in ("cliff", "collapse") for n in SEEDS]
SETTINGS += [Setting("linear", "symmetric", n, luck=0.7) for n in SEEDS]
SETTINGS += [Setting("linear", "turning", n, missing=0.06) for n in SEEDS]
# Five seeds at every rate, 10 beside the best rate, 30 at the best and the five rates around it.
SETTINGS += [Setting("linear", shape, 30, designed=True) for shape in ("symmetric", "turning")]
# Of transitions that are more or less sharp only the exponent is looked at: its fit takes longer than all the rest.
SHARPNESS = {"smooth": 1.0, "linear": math.inf}
SHARPNESS |= {law: float(law.split(",")[0].removeprefix("k = ")) for law in LAWS_BETWEEN}
SHARP_SETTINGS = [Setting(law, shape, n) for law in LAWS_BETWEEN for shape in ("symmetric", "steep") for n in SEEDS]
SHARP_SETTINGS += [Setting(law, "steep", n, luck=0.5) for law in ("smooth", "linear") for n in SEEDS]

SETTING_FIELDS = [of.name for of in fields(Setting)]


def falling(x: float) -> float:
    """Return by how much SGD's best score lies below the plateau."""
    return LOSS_AN_OCTAVE * max(0.0, x - LOSSES_FROM)


def margin_apart(x: float) -> float:
    """Return the same for momentum: it does not fall, but at one batch size it is worse by the margin."""
    return MARGIN if x == math.log2(NOISE[2]) else 0.0


def expected(truth: Truth, column: str, size: int, octaves: np.ndarray) -> np.ndarray:
    """Return the mean goodness of rates, failed trials counting as the constant baseline."""
    loss = column == "train_loss"
    constant = constant_goodness(RECORD, "train_loss" if loss else "score")
    mean = -truth.mean_log_loss(size, octaves) if loss else truth.mean_score(size, octaves)
    share = truth.failing(size, octaves)
    goodness: np.ndarray = (1 - share) * mean + share * constant
    return goodness


@lru_cache
def best_octave(truth: Truth, column: str, size: int) -> float:
    """Return log₂ of the rate of the best expected value: near a cliff it is below the planted, since trials fail."""
    octaves = truth.octave(size) + np.linspace(-2, 1, 6001)
    return float(octaves[expected(truth, column, size, octaves).argmax()])


def study(setting: Setting, number: int) -> Found:
    """Return of each quantity whether its interval held the truth, or its verdict was given, and the width."""
    rng = np.random.default_rng([number, zlib.crc32(repr(setting).encode())])
    truth = setting.truth(falling)
    if setting in SHARP_SETTINGS:
        return _sharpness(SHARPNESS[setting.law], simulate(rng, setting.n, truth))
    sgd, momentum = (simulate(rng, setting.n, setting.truth(lost)) for lost in (falling, margin_apart))
    if setting.designed:
        sgd, momentum = ({size: designed(cell) for size, cell in of.items()} for of in (sgd, momentum))
    found: Found = {}
    found |= _optima(truth, sgd)
    found |= _rates(setting, truth, sgd, momentum)
    found |= _scores(truth, sgd, momentum)
    if setting.shape in FAILING:
        found |= _failing(truth, sgd)
    if setting.law == "linear" and setting.shape == "symmetric":
        found |= _saturation(rng, setting.n)
    return found


def designed(cell: SimulatedCell) -> SimulatedCell:
    """Return a cell with 5 seeds, 10 at the rates beside the best of these, and 30 within an octave of the best then.

    Rates chosen by the first seeds alone have few seeds that choose; seeds that are not there are missing.
    """
    many = np.full(len(cell.rates), 5)
    octaves = np.log2(cell.rates)
    for seeds, within in ((10, 0.6), (30, 1.1)):
        missing = np.arange(cell.diverged.shape[1]) >= many[:, None]
        best = int(replace(cell, missing=missing).curve("validation_score").best()[0])
        many[np.abs(octaves - octaves[best]) < within] = seeds
    return replace(cell, missing=np.arange(cell.diverged.shape[1]) >= many[:, None])


def _saturation(rng: np.random.Generator, n: int) -> Found:
    """Return whether the score is said to saturate though each doubling up to the ceiling gains δ."""
    budget = Unlimited(10, 160)
    own = rng.normal(size=n) * 0.003
    outcomes = [
        Outcome(one.n, np.arange(n), PLATEAU + MARGIN * k + own + rng.normal(size=n) * 0.005, 0.0)
        for k, one in enumerate(budget.budgets)
    ]
    stopped = saturated(outcomes, RECORD, "score", budget, MARGIN).saturated_at is not None
    return {(FALSE, "saturated though a doubling gains δ"): (float(stopped), math.nan)}


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
        for size, cell in list(sgd.items())[::2]:
            low, high, _ = optimum_interval(cell.curve(column))
            held.append(_holds(low, best_octave(truth, column, size), high))
        share, width = np.mean(held, axis=0)
        found[HELD, f"x* for the {name}"] = float(share), float(width)
    return found


def _rates(setting: Setting, truth: Truth, sgd: dict[int, SimulatedCell], momentum: dict[int, SimulatedCell]) -> Found:
    """Return what is found of the law of the optimal rate."""
    found: Found = {}
    cells = _cells(sgd)
    planted = np.array([best_octave(truth, "validation_score", size) for size in sgd])
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
    grows = setting.law in ("linear", "square root", "smooth")
    if not grows:
        found[FALSE, "B_ε identified without a transition"] = identified
    else:
        transition = float(fit_hinge(cells.x, planted[None]).transition[0])
        found[TRUE, "B_ε identified"] = identified
        if row.get("transition_low") is not None:
            high = row.get("transition_high") or math.inf
            found[HELD, "B_ε"] = _holds(math.log2(row["transition_low"]), transition, math.log2(high))
    for status, law in ((NOWHERE, "constant"), (THROUGHOUT, "no transition in range")):
        found[TRUE if setting.law == law else FALSE, status] = float(row["status"] == status), math.nan
    apart = {size: replace(momentum[size], rates=momentum[size].rates * 2**0.5) for size in NOISE}
    between = octaves_between(_cells(apart), cells.of(NOISE), 0.0)
    found[HELD, "octaves between optimizers"] = _holds(between.low95, 0.5, between.high95)
    found[FALSE, "rates half an octave apart called equal"] = (
        float(between.verdict(-0.5, 0.5) == "supported"),
        math.nan,
    )
    return found


def _sharpness(exponent: float, sgd: dict[int, SimulatedCell]) -> Found:
    """Return what is found of C7: how sharp the transition is, where it is identified."""
    cells = _cells(sgd)
    identified = transition_of(cells)["status"] == IDENTIFIED
    found: Found = {(TRUE, "B_ε identified"): (float(identified), math.nan)}
    verdict = "not tested"
    if identified:
        sharp = sharpness_of(cells)
        found[HELD, "exponent k"] = float(sharp["k_low"] <= exponent <= sharp["k_high"]), math.nan
        verdict = sharp_verdict(sharp)
    for name, true in (("supported", exponent > SHARP), ("contradicted", exponent < SMOOTH)):
        found[TRUE if true else FALSE, f"C7 {name}"] = float(verdict == name), math.nan
    return found


def _scores(truth: Truth, sgd: dict[int, SimulatedCell], momentum: dict[int, SimulatedCell]) -> Found:
    """Return what is found of the best scores: thresholds, equivalence, and the score at the chosen rate."""
    found: Found = {}
    chosen = {size: int(cell.curve("validation_score").best()[0]) for size, cell in sgd.items()}
    scores, others = (
        np.array([c.curve("test_score").goodness[int(c.curve("validation_score").best()[0])] for c in of.values()])
        for of in (sgd, momentum)
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
        trained, means = truth.mean_score(size, octaves), expected(truth, "test_score", size, octaves)
        curve = cell.curve("test_score")
        failed = curve.failed[rate]
        name, mean = ("all trained", trained[rate]) if not failed.any() else ("some failed", means[rate])
        _, low, high = interval_with_failures(scores[number], failed)
        held["score at the validated rate"].append(_holds(low, float(mean), high))
        held[f"score at the validated rate, {name}"].append(_holds(low, float(mean), high))
        if failed.any():
            _, low, high = t_interval(scores[number][~failed])
            held["score of the trials that trained, some failed"].append(_holds(low, float(trained[rate]), high))
        if cell.missing is not None:
            continue
        n = len(curve.seeds)
        rates = curve.best(np.array([[seed for seed in range(n) if seed != left] for left in range(n)]))
        if not curve.failed[rates, np.arange(n)].any():
            interval = left_one_out_interval(curve)
            held["score, left one out, all trained"].append(_holds(*_around(float(trained[rates].mean()), interval)))
    for name, of in held.items():
        share, width = np.mean(of, axis=0)
        found[HELD, name] = float(share), float(width)
    return found


def _failing(truth: Truth, sgd: dict[int, SimulatedCell]) -> Found:
    """Return what is found of C15: whether the optimal rate nears the rate at which training fails."""
    cells = _cells(sgd).inside
    cells = cells.of([size for size, c in zip(cells.sizes, cells.curves, strict=True) if not c.stable[-1]])
    if len(cells.sizes) < FEWEST_IN_REGIME:
        return {}
    octaves = np.linspace(-15, 5, 20001)
    fails = [octaves[(truth.failing(int(size), octaves) > MOST_FAILED).argmax()] for size in cells.sizes]
    best = [best_octave(truth, "validation_score", int(size)) for size in cells.sizes]
    slope, _ = distance_to_failure(cells)
    planted = float(fit_line(cells.x, np.subtract(fails, best)[None])[0])
    found: Found = {(HELD, "slope of the distance to failing rates"): _holds(slope.low95, planted, slope.high95)}
    verdict = slope.verdict(*DOWN)
    if planted >= -ROUNDING:
        found[FALSE, "C15 supported though the distance does not shrink"] = float(verdict == "supported"), math.nan
    else:
        found[TRUE, "C15 supported"] = float(verdict == "supported"), math.nan
        found[FALSE, "C15 contradicted though the distance shrinks"] = float(verdict == "contradicted"), math.nan
    return found


def portion(task: tuple[Setting, int]) -> tuple[Setting, list[Found]]:
    """Return the studies of one setting in one round."""
    setting, number = task
    return setting, [study(setting, STUDIES_A_ROUND * number + k) for k in range(STUDIES_A_ROUND)]


def summary(found: dict[Setting, list[Found]]) -> pl.DataFrame:
    """Return one row for each setting and quantity."""
    rows = []
    for setting in (*SETTINGS, *SHARP_SETTINGS):
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
                | {"median_width": None if np.isnan(widths).any() else float(np.median(widths))}
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def markdown(table: pl.DataFrame) -> str:
    """Return the shares by quantity and seeds with the setting that comes out worst, and by setting."""
    names = ["quantity", "share of", "5 seeds", "15 seeds", "5 to 30", "width, 5 seeds", "15 seeds", "worst setting"]
    lines = [f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
    for rows in table.partition_by("kind", "quantity", maintain_order=True):
        kind, quantity = rows["kind"][0], rows["quantity"][0]
        of_n = [rows.filter(pl.col("n") == n) for n in (5, 15, 30)]
        widths = [of["median_width"].median() for of in of_n[:2]]
        cells = [quantity, kind, *map(_pooled, of_n), *("" if width is None else f"{width:.2g}" for width in widths)]
        lines.append(f"| {' | '.join(cells)} | {_worst(rows)} |")
    lines += ["", "| setting | studies | interval that holds least | most false verdict |", "| --- " * 4 + "|"]
    for rows in table.partition_by(*SETTING_FIELDS, maintain_order=True):
        worst = [_worst(rows.filter(kind=kind), "quantity") for kind in (HELD, FALSE)]
        lines.append(f"| {_named(rows.row(0, named=True))} | {rows['studies'].max()} | {' | '.join(worst)} |")
    return "\n".join(lines) + "\n"


def _named(row: dict[str, Any]) -> str:
    return Setting(*(row[name] for name in SETTING_FIELDS)).named


def _worst(rows: pl.DataFrame, what: str = "setting") -> str:
    """Return the share that is worst, and of which setting or quantity it is."""
    if rows.is_empty():
        return ""
    row = rows.sort("share", descending=rows["kind"][0] == FALSE, maintain_order=True).row(0, named=True)
    return f"{row['share']:.3f} ± {row['error']:.3f} ({_named(row) if what == 'setting' else row['quantity']})"


def outside(table: pl.DataFrame) -> str:
    """Return which settings hold less than .93 of the truths, or have more than .05 false verdicts."""
    wrong = ((pl.col("kind") == HELD) & (pl.col("share") < 0.93)) | (
        (pl.col("kind") == FALSE) & (pl.col("share") > 0.05)
    )
    lines = []
    for rows in table.filter(wrong).partition_by("kind", "quantity", maintain_order=True):
        of = table.filter(quantity=rows["quantity"][0])
        named = "; ".join(
            f"{_named(row)}: {row['share']:.3f} ± {row['error']:.3f}"
            for row in rows.sort("share").iter_rows(named=True)
        )
        everywhere = np.average(of["share"], weights=of["studies"])
        where = f"{len(rows)} of {len(of)} settings; all together {everywhere:.3f}"
        lines.append(f"- {rows['quantity'][0]} ({where}): {named}")
    return "\n".join(lines) + "\n"


def _pooled(rows: pl.DataFrame) -> str:
    return f"{np.average(rows['share'], weights=rows['studies']):.3f}" if len(rows) else ""


def tasks(studies: int) -> Iterator[tuple[Setting, int]]:
    """Yield all settings, round by round."""
    for number in range(math.ceil(studies / STUDIES_A_ROUND)):
        for setting in (*SETTINGS, *SHARP_SETTINGS):
            yield setting, number


def main(studies: int, out: Path) -> None:
    """Simulate, and write the table and its summary after each round."""
    intervals.RESAMPLES = RESAMPLES
    out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[Setting, list[Found]] = defaultdict(list)
    todo = list(tasks(studies))
    for count, (setting, of) in enumerate(track(map(portion, todo), "simulating", len(todo)), 1):
        found[setting] += of
        if count % len(SETTINGS + SHARP_SETTINGS) == 0:
            table = summary(found)
            table.with_columns(pl.col(pl.Float64).round(4)).write_csv(out)
            out.with_suffix(".md").write_text(markdown(table) + "\n" + outside(table))
    print(out.with_suffix(".md").read_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="?", type=int, default=400, help="simulated studies a setting")
    parser.add_argument("--out", type=Path, default=Path("results/coverage/coverage.csv"))
    arguments = parser.parse_args()
    main(arguments.studies, arguments.out)
