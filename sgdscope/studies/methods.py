"""Methods made for curvature against SGD, on handwritten digits: momentum, Adam and K-FAC over batch sizes.

Hypothesis: methods made for curvature help at large batch sizes or at a constant number of steps alone. At constant
epochs SGD at its best batch size is as good as they are at theirs.

All optimizers see as many examples as SGD in as many updates. K-FAC makes two passes over each batch, so that it takes
more gradients and more seconds. Its damping is searched together with the learning rate.

Command: ``sgdscope run methods --out FOLDER``.
Cost: about 3,500 trials; 15 minutes of one core, most of them K-FAC's.
"""

from sgdscope.budget import Epochs, Steps
from sgdscope.optimizers import KFAC, SGD, Adam, Values
from sgdscope.seeds import Seeds
from sgdscope.study import Study
from sgdscope.workloads.digits import digits

study = Study(
    name="methods",
    workloads=(digits(),),
    optimizers=(SGD(), SGD(momentum=0.9), Adam(), KFAC(damping=Values(0.01, 0.1, 1))),
    batch_sizes=(8, 32, 128, 512),
    budgets=(Epochs(20), Steps(200)),
    seeds=Seeds(search=5, near_best=15),
    score_margin=0.004,  # 2 of 517 test images are 0.0039
    evaluate_at=(0.25, 0.5, 1.0),
)
