"""Batch size at a constant epoch budget, on handwritten digits: the whole question in a minute or two.

Hypothesis: below some batch size SGD and momentum reach the same test score and the optimal learning rate
grows with the batch; above it the learning rate stops growing, the score falls, and momentum is ahead.

Command: ``sgdscope run digits --out FOLDER``.
Cost: about 700 trials, 30 epochs of 1,024 pictures each; under 60 s on two cores.
What came out: with 15 seeds both regimes, and the bend of SGD's learning rate at 25 [18, 35] (``results/digits``);
with the 5 seeds that it has the bend of that for the score is not identified.
"""

from sgdscope.budget import Epochs
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.workloads.digits import digits

study = Study(
    name="digits",
    workloads=(digits(),),
    optimizers=(SGD(), SGD(momentum=0.9)),
    batch_sizes=(4, 8, 16, 32, 64, 128, 256, 512, 1024),
    budgets=(Epochs(30),),
    seeds=5,
)
