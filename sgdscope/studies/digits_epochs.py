"""Epochs at a fixed batch size, on handwritten digits: what a larger budget buys, and at which learning rate.

Hypothesis: the test score saturates as epochs are added, the learning rate that is best for the training loss decays,
and the one that is best for the test score hardly changes, so that large learning rates generalize well early on.

Command: ``sgdscope run digits_epochs --out FOLDER``.
Cost: about 340 trials of 5 to 320 epochs; two minutes of one core.
What came out, with 15 seeds: the score is flat from 40 epochs on while the training loss still falls, but the two
optimal learning rates do not part: that for the training loss rises a little (``results/digits``).
"""

from sgdscope.budget import Epochs
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.workloads.digits import digits

study = Study(
    name="digits-epochs",
    workloads=(digits(),),
    optimizers=(SGD(momentum=0.9),),
    batch_sizes=(64,),
    budgets=tuple(Epochs(epochs) for epochs in (5, 10, 20, 40, 80, 160, 320)),
    seeds=5,
)
