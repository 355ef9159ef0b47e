"""The figures, in the order of the page: each is the file that has the name of its anchor."""

from __future__ import annotations

from sgdscope.analysis.tables import Tables
from sgdscope.report.figures import (
    best_by_method,
    best_score,
    difference_from_sgd,
    failures,
    loss_along_training,
    loss_by_learning_rate,
    loss_by_seconds,
    noise_scale,
    optimal_learning_rate,
    optimal_temperature,
    rates_by_epochs,
    score_along_training,
    score_by_cost,
    score_by_epochs,
    score_by_learning_rate,
    score_by_temperature,
    sharpness,
    training_loss,
    two_regimes,
)
from sgdscope.report.figures.figure import Figure

OF_ONE_BUDGET = (
    best_score,
    difference_from_sgd,
    failures,
    optimal_learning_rate,
    two_regimes,
    training_loss,
    score_by_learning_rate,
    loss_by_learning_rate,
    loss_along_training,
    score_along_training,
    noise_scale,
    sharpness,
    optimal_temperature,
    score_by_temperature,
)
OF_METHODS = (best_by_method, score_by_cost, loss_by_seconds)
OF_SEVERAL_BUDGETS = (score_by_epochs, rates_by_epochs)


def figures_of(part: Tables) -> list[Figure]:
    """Return the figures of one workload and budget that its trials are enough for."""
    return [figure for module in (*OF_ONE_BUDGET, *OF_METHODS) if (figure := module.figure(part))]


def figures_against_epochs(tables: Tables, workload: str) -> list[Figure]:
    """Return the figures of a workload against epochs; none unless a batch size has several epoch budgets."""
    return [figure for module in OF_SEVERAL_BUDGETS if (figure := module.figure(tables, workload))]
