"""Batch size at a constant epoch budget, on handwritten digits: the whole question in a minute or two.

Hypothesis: below some batch size SGD and momentum reach the same test score and the optimal learning rate
grows with the batch; above it the learning rate stops growing, the score falls, and momentum is better.

Sweep ``steps``: at large batch sizes the score falls although the training loss is lower, since the noise of the
gradient is missing there. The optimal learning rate rises more slowly than the batch.

Sweep ``epochs``: the score saturates, the learning rate that is best for the training loss decays, and the one that is
best for the score hardly changes, so that large learning rates generalize well early on.

Command: ``sgdscope run digits --out FOLDER``, and with ``--sweep steps`` or ``--sweep epochs``.
Cost: about 1,900 trials, 30 epochs of 1,024 images each; one to two minutes on two cores. With ``--quick``, 5 seeds,
it is a third, and the transition for the score is not identified.
What came out: both regimes, and SGD's transition batch size at 19 [9, 41] (``results/digits``). At constant steps the
training loss falls with the batch size, the optimal learning rate rises by a factor of 1.4 a doubling, and the score
falls by 0.7 points. Batch sizes of 4 and 8 see the images once or twice and have a worse score, since they are
undertrained. Over epochs the score is flat from 40 on while the training loss still falls, but the two optimal learning
rates do not part: the one for the training loss rises a little.
"""

from sgdscope.budget import Epochs
from sgdscope.optimizers import SGD
from sgdscope.studies.profiles import Sweeps
from sgdscope.study import Study
from sgdscope.workloads.digits import digits

study = Study(
    name="digits",
    workloads=(digits(),),
    optimizers=(SGD(), SGD(momentum=0.9)),
    batch_sizes=(2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
    budgets=(Epochs(30),),
    seeds=15,
    score_margin=0.004,  # 2 of 517 test images are 0.0039
)
SWEEPS = Sweeps(steps=200, epochs=(5, 10, 20, 40, 80, 160, 320))
