"""How often the interval for the population of examples holds the truth, beside others that could be taken.

Seeds and examples are drawn anew for each table: logit P(right) = a + τ z_example + s z_seed, with a set so that the
population's accuracy is what is asked. A τ of 6 has nearly all errors on the same few examples; s = 0.3 spreads the
seeds as those of the digits are, and 1 far more.

    python benchmarks/population_coverage.py [TABLES]
"""

from __future__ import annotations

import itertools
import math
import sys
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from sgdscope.stats.crossed import crossed_error, population_difference, population_interval
from sgdscope.stats.intervals import t_interval

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(300)
SPREADS = ((6.0, 0.3), (3.0, 0.2), (3.0, 0.5), (3.0, 1.0))
RESAMPLES = 400


@lru_cache
def offset(accuracy: float, spread: float) -> float:
    """Return a, at which the mean of P(right) over seeds and examples is the accuracy."""
    share = WEIGHTS / WEIGHTS.sum()
    return float(optimize.brentq(lambda a: share @ special.expit(a + spread * NODES) - accuracy, -60, 60))


def tables(
    rng: np.random.Generator, accuracies: tuple[float, ...], spread: tuple[float, float], n: int, examples: int
) -> list[np.ndarray]:
    """Return one table of right and wrong for each accuracy, on the same examples."""
    difficulty, found = spread[0] * rng.normal(size=(1, examples)), []
    for accuracy in accuracies:
        logits = offset(accuracy, math.hypot(*spread)) + difficulty + spread[1] * rng.normal(size=(n, 1))
        found.append((rng.random((n, examples)) < special.expit(logits)).astype(float))
    return found


def pigeonhole(rng: np.random.Generator, values: np.ndarray) -> tuple[float, float]:
    """Return the percentiles of the mean where seeds and examples are both drawn with replacement."""
    seeds, examples = (rng.multinomial(k, np.full(k, 1 / k), RESAMPLES) / k for k in values.shape)
    low, high = np.quantile(((seeds @ values) * examples).sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def plain(values: np.ndarray) -> tuple[float, float]:
    """Return p ± t√V."""
    error, degrees = crossed_error(values)
    half = float(special.stdtrit(degrees, 0.975)) * error
    return float(values.mean()) - half, float(values.mean()) + half


def main(count: int) -> None:
    """Print the coverage of each interval for each kind of table."""
    rng = np.random.default_rng(0)
    for n, examples, spread in itertools.product((5, 10, 15), (256, 517), SPREADS):
        for accuracies in ((0.88,), (0.96,), (0.985,), (0.98, 0.98), (0.985, 0.98), (0.98, 0.96), (0.96, 0.88)):
            held: dict[str, int] = {}
            truth = accuracies[0] if len(accuracies) == 1 else accuracies[0] - accuracies[1]
            for _ in range(count):
                found = tables(rng, accuracies, spread, n, examples)
                if len(found) == 2:
                    intervals = {"difference": population_difference(*found)[1:]}
                else:
                    (values,) = found
                    intervals = {
                        "test_set": population_interval(values)[1:],
                        "plain": plain(values),
                        "bootstrap": pigeonhole(rng, values),
                        "seeds": t_interval(values.mean(axis=1))[1:],
                    }
                for name, (low, high) in intervals.items():
                    held[name] = held.get(name, 0) + (low <= truth <= high)
            shares = "  ".join(f"{name} {number / count:.3f}" for name, number in held.items())
            print(f"n={n:<3} N={examples} spread={spread} {accuracies}: {shares}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
