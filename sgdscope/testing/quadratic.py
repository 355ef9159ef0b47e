"""The noisy quadratic: the workload whose every answer has a closed form, the oracle of the whole system."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from sgdscope.workloads.base import Batch, Parameters, Resident, Workload


@dataclass(frozen=True)
class NoisyQuadratic:
    """The loss ½ Σ h_i θ_i² whose gradient is seen through noise of variance (h_i s)²/B.

    An example is drawn anew at each visit: a point z ~ N(0, s²) in each coordinate, with loss
    ½ Σ h_i (θ_i − z_i)². The gradient of a batch of B is h_i (θ_i − mean z_i), so its noise is independent
    from step to step with covariance exactly proportional to 1/B. Evaluation sees z = 0.

    Each coordinate's second moment then follows the recursion that :meth:`expected_loss` iterates.

    Args:
        curvatures: h, one for each coordinate.
        noise: s, the standard deviation of an example.
        start: every coordinate's initial value.
        examples: N, which only decides how many updates an epoch has.

    Source: Zhang et al. (2019), arXiv 1907.04164, section 3, with the noise made Gaussian.
    """

    curvatures: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    noise: float = 1.0
    start: float = 1.0
    examples: int = 256

    def workload(self) -> Workload:
        """Return this quadratic as a workload; its score is the loss and its example an array of zeros."""
        h = np.array(self.curvatures, np.float32)
        points = np.zeros((self.examples, len(h)), np.float32)

        def init(key: jax.Array) -> Parameters:
            return jnp.full(len(h), self.start, jnp.float32)

        def loss(theta: Parameters, state: tuple[()], batch: Batch) -> jax.Array:
            losses: jax.Array = 0.5 * ((jnp.expand_dims(theta, 0) - batch["point"]) ** 2 * jnp.expand_dims(h, 0)).sum(
                axis=1
            )
            return losses

        def augment(key: jax.Array, example: Batch) -> Batch:
            return {"point": self.noise * jax.random.normal(key, (len(h),), jnp.float32)}

        constant = float(0.5 * (h * np.float32(self.start) ** 2).sum())
        return Workload(
            name="quadratic",
            version="1",
            train={"point": points},
            validation={"point": points[:1]},
            test={"point": points[:1]},
            init=init,
            loss=loss,
            score=loss,
            constant_loss=constant,
            constant_score=constant,
            score_name="loss",
            score_goal="minimize",
            reader=Resident(augment),
            fields={
                "curvatures": ",".join(map(str, self.curvatures)),
                "noise": self.noise,
                "start": self.start,
            },
        )

    def expected_loss(self, learning_rates: np.ndarray, momentum: float, batch_size: int) -> np.ndarray:
        """Return the expected loss before the first and after every update, shape (len(learning_rates) + 1,).

        With μ the mean of (θ, v) and S its covariance in one coordinate, an update with rate ε maps both
        linearly, x ← A x + b ξ with A = [[1 − εh, −εm], [h, m]], b = (−ε, 1) h s/√B and ξ ~ N(0, 1), so
        μ ← A μ and S ← A S Aᵀ + b bᵀ; the expected loss is ½ Σ h (μ_θ² + S_θθ).

        Args:
            learning_rates: the rate really used at each update, shape (T,).
            momentum: m.
            batch_size: B.
        """
        losses = np.zeros(len(learning_rates) + 1)
        for h in np.asarray(self.curvatures, float):
            mean, covariance = np.array([self.start, 0.0]), np.zeros((2, 2))
            losses[0] += 0.5 * h * mean[0] ** 2
            for step, rate in enumerate(learning_rates):
                a = np.array([[1 - rate * h, -rate * momentum], [h, momentum]])
                b = np.array([-rate, 1.0]) * h * self.noise / np.sqrt(batch_size)
                mean, covariance = a @ mean, a @ covariance @ a.T + np.outer(b, b)
                losses[step + 1] += 0.5 * h * (mean[0] ** 2 + covariance[0, 0])
        return losses

    def stationary_variance(self, learning_rate: float, momentum: float, batch_size: int) -> np.ndarray:
        """Return the variance that each coordinate settles at under a constant rate, shape (coordinates,).

        Var θ_i = ε h s² (1 + m) / (B (1 − m) (2 (1 + m) − ε h)), from the fixed point of S = A S Aᵀ + b bᵀ.
        """
        h, e, m = np.asarray(self.curvatures, float), learning_rate, momentum
        return e * h * self.noise**2 * (1 + m) / (batch_size * (1 - m) * (2 * (1 + m) - e * h))
