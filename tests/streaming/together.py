"""Run one study as one of two processes: FOLDER ADDRESS NUMBER [HOW], of which the second may do otherwise.

It is killed after so many updates, or has a ``wider`` network or ``more`` batch sizes, or trains another ``seed``, or
``cannot`` read one of the examples.
"""

import os
import signal
import sys
from dataclasses import replace


def study(hidden=16, batch_sizes=(32, 64), read="read"):
    import digits_feed

    import sgdscope as sg
    from sgdscope.workloads.base import Feed
    from sgdscope.workloads.digits import digits

    feed = Feed(digits_feed.LAYOUT, digits_feed.locate, getattr(digits_feed, read), {"train": 1})
    return sg.Study(
        name="together", workloads=replace(digits(hidden=hidden), reader=feed),
        batch_sizes=batch_sizes, microbatch_size=16,
        budgets=sg.Steps(12), learning_rates=(0.1,), optimizers=sg.SGD(momentum=0.9), seeds=1, devices_per_trial=2,
    )  # fmt: skip


if __name__ == "__main__":
    import jax

    import sgdscope as sg
    from sgdscope.streaming import streamed
    from sgdscope.training import loop
    from sgdscope.training.checkpoint import Checkpoints
    from sgdscope.training.jax_setup import COMPILER_OPTIONS

    folder, address, number, *how = sys.argv[1:]
    jax.distributed.initialize(address, 2, int(number))
    COMPILER_OPTIONS["cpu"]["xla_backend_optimization_level"] = 0
    loop.CHECKPOINT_SECONDS, loop.SEGMENT_SECONDS = -1.0, 0.0  # one update a segment
    other = {"wider": {"hidden": 17}, "more": {"batch_sizes": (32, 64, 128)}, "cannot": {"read": "read_but_the_last"}}
    if how == ["seed"]:
        start = streamed.StreamedBackend.start
        streamed.StreamedBackend.start = lambda self, trials: start(
            self, [replace(trial, seed=trial.seed + 1) for trial in trials]
        )
    elif how and how[0].isdigit():
        plain, left = Checkpoints.save, int(how[0])

        def save(*of):
            global left
            plain(*of)
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        Checkpoints.save = save
    with sg.exit_together():
        sg.run(study(**other.get("".join(how), {})), folder)
