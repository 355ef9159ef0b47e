"""Regularization in place of noise, on handwritten digits: the gradient penalty and L2 at small and large batches.

Hypothesis: at a constant number of steps a large batch loses score for want of noise, and explicit regularization can
give it back.

The strength of each penalty is searched together with the learning rate at every batch size, 0 among its values, so
that small and large batches are tuned by the same effort. The control is L2 in place of the gradient penalty.

Command: ``sgdscope run regularization --out FOLDER``.
Cost: about 2,500 trials; 6 minutes of one core.
"""

from sgdscope.budget import Steps
from sgdscope.optimizers import L2, SGD, GradientPenalty, Values
from sgdscope.seeds import Seeds
from sgdscope.study import Study
from sgdscope.workloads.digits import digits

study = Study(
    name="regularization",
    workloads=(digits(),),
    optimizers=(
        SGD(momentum=0.9),
        GradientPenalty(strength=Values(0, 0.5, 2, 8), block=32),
        L2(weight_decay=Values(0, 1e-4, 1e-3, 1e-2)),
    ),
    batch_sizes=(32, 128, 1024),
    budgets=(Steps(200),),
    seeds=Seeds(search=5, near_best=15),
    score_margin=0.004,
)
