"""Methods against the gradient's noise, on handwritten digits: SVRG and α-SVRG beside SGD with the same momentum.

Hypothesis: methods against gradient noise do not work well on neural networks, neither at equal epochs nor at equal
steps.

An update of SVRG takes three gradients for SGD's one: at the parameters, at the snapshot, and its share of the full
gradient of an epoch. At equal examples SVRG therefore computes three times as long.

Command: ``sgdscope run noise_reduction --out FOLDER``.
Cost: about 1,800 trials; 4 minutes of one core.
"""

from sgdscope.budget import Epochs, Steps
from sgdscope.optimizers import SGD, SVRG, AlphaSVRG
from sgdscope.seeds import Seeds
from sgdscope.study import Study
from sgdscope.workloads.digits import digits

study = Study(
    name="noise-reduction",
    workloads=(digits(),),
    optimizers=(SGD(momentum=0.9), SVRG(), AlphaSVRG()),
    batch_sizes=(8, 32, 128, 512),
    budgets=(Epochs(20), Steps(200)),
    seeds=Seeds(search=5, near_best=15),
    score_margin=0.004,
    evaluate_at=(0.25, 0.5, 1.0),
)
