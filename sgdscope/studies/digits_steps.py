"""Batch size at a constant number of steps, on handwritten digits: what more computation a step buys.

Hypothesis: at large batch sizes the test score falls although the training loss is lower: there the noise of the
gradient is missing. The optimal learning rate rises more slowly than the batch.

Command: ``sgdscope run digits_steps --out FOLDER``.
Cost: about 350 trials of 200 updates; one at 1,024 is 200 epochs. A minute of one core.
What came out, with 15 seeds: the training loss falls with the batch size, and the optimal learning rate rises by a
factor of 1.4 a doubling; the score falls by 0.7 points (``results/digits``). Batch sizes of 4 and 8 see the pictures
once or twice and are undertrained: they lose score for another reason than the largest.
"""

from sgdscope.budget import Steps
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.workloads.digits import digits

study = Study(
    name="digits-steps",
    workloads=(digits(),),
    optimizers=(SGD(momentum=0.9),),
    batch_sizes=(4, 8, 16, 32, 64, 128, 256, 512, 1024),
    budgets=(Steps(200),),
    seeds=5,
)
