"""Regularization in place of noise, on handwritten digits: penalties and label smoothing at small and large batches.

Hypothesis: at a constant number of steps a large batch loses score for want of noise, and explicit regularization can
give it back.

The strength of each penalty is searched together with the learning rate at every batch size, 0 among its values, so
that small and large batches are tuned by the same effort. The controls are L2 and label smoothing in place of the
gradient penalty.

Command: ``sgdscope run regularization --out FOLDER``.
Cost: about 3,500 trials; 8 minutes of one core.
"""

from sgdscope.budget import Steps
from sgdscope.optimizers import L2, SGD, GradientPenalty, LabelSmoothing, Values
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
        LabelSmoothing(smoothing=Values(0, 0.05, 0.1, 0.2)),
    ),
    batch_sizes=(32, 128, 1024),
    budgets=(Steps(200),),
    seeds=Seeds(search=5, near_best=15),
    score_margin=0.004,
)
