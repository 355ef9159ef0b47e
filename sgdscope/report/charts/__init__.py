"""The figures: one function each, table in, chart out."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt

from sgdscope.analysis.tables import Tables
from sgdscope.report.charts.along_training import loss_along_training, noise_scale_along_training, score_along_training
from sgdscope.report.charts.by_batch_size import best_score, optimal_temperature, training_loss
from sgdscope.report.charts.by_epochs import best_score_by_epochs, optimal_rates_by_epochs
from sgdscope.report.charts.by_learning_rate import loss_by_learning_rate, score_by_learning_rate, score_by_temperature
from sgdscope.report.charts.offline import offline
from sgdscope.report.charts.regimes import optimal_learning_rate, two_regimes

__all__ = [
    "Charts",
    "best_score",
    "best_score_by_epochs",
    "loss_along_training",
    "loss_by_learning_rate",
    "noise_scale_along_training",
    "optimal_learning_rate",
    "optimal_rates_by_epochs",
    "optimal_temperature",
    "score_along_training",
    "score_by_learning_rate",
    "score_by_temperature",
    "training_loss",
    "two_regimes",
]

best_score = offline(best_score)
best_score_by_epochs = offline(best_score_by_epochs)
loss_along_training = offline(loss_along_training)
loss_by_learning_rate = offline(loss_by_learning_rate)
noise_scale_along_training = offline(noise_scale_along_training)
optimal_learning_rate = offline(optimal_learning_rate)
optimal_rates_by_epochs = offline(optimal_rates_by_epochs)
optimal_temperature = offline(optimal_temperature)
score_along_training = offline(score_along_training)
score_by_learning_rate = offline(score_by_learning_rate)
score_by_temperature = offline(score_by_temperature)
training_loss = offline(training_loss)
two_regimes = offline(two_regimes)


@dataclass(frozen=True)
class Charts:
    """The figures of one workload and budget; those of what was not measured are empty."""

    tables: Tables

    def best_score(self) -> alt.LayerChart:
        """Best test score against batch size, with the plateau where the score is shown to hold."""
        record = self.tables.record
        return best_score(self.tables.optima, self.tables.score_limits, record.score_name, record.score_sign)

    def optimal_learning_rate(self) -> alt.LayerChart:
        """Score-optimal effective learning rate against batch size, with the fitted regimes."""
        return optimal_learning_rate(self.tables.optima, self.tables.transitions)

    def two_regimes(self) -> alt.HConcatChart:
        """Optimal learning rate against batch size up to N, with both regimes, one panel for each optimizer."""
        return two_regimes(self.tables)

    def training_loss(self) -> alt.LayerChart:
        """Best training loss against batch size."""
        return training_loss(self.tables.optima)

    def score_by_learning_rate(self) -> alt.HConcatChart:
        """Test score against learning rate, one line for each batch size."""
        workload = self.tables.record
        return score_by_learning_rate(self.tables.curves, workload.score_name, workload.score_sign)

    def loss_by_learning_rate(self) -> alt.HConcatChart:
        """Training loss against learning rate, one line for each batch size."""
        return loss_by_learning_rate(self.tables.curves)

    def loss_along_training(self) -> alt.HConcatChart:
        """Loss of minibatches along training at each batch size's best rate."""
        return loss_along_training(self.tables.training_curves)

    def score_along_training(self) -> alt.HConcatChart:
        """Test score along training at each batch size's best rate."""
        return score_along_training(self.tables.training_curves, self.tables.record.score_name)

    def noise_scale_along_training(self) -> alt.HConcatChart:
        """Gradient noise scale along training at each batch size's best rate, beside the bend."""
        return noise_scale_along_training(self.tables.noise_scale_at_best, self.tables.transitions)

    def optimal_temperature(self) -> alt.LayerChart:
        """Temperature at the best rate against batch size."""
        return optimal_temperature(self.tables.optima)

    def score_by_temperature(self) -> alt.HConcatChart:
        """Test score against temperature, one line for each batch size."""
        workload = self.tables.record
        return score_by_temperature(self.tables.curves, workload.score_name, workload.score_sign)
