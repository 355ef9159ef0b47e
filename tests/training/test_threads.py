"""On a CPU the bits of large batches depend on XLA's number of threads, so the circumstances name it."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from sgdscope.budget import Epochs
from sgdscope.optimizers import SGD
from sgdscope.study import Study
from sgdscope.training.loop import Milestones, train
from sgdscope.training.packed import PackedBackend
from sgdscope.training.traced import trace
from sgdscope.workloads.digits import digits

workload = digits()
study = Study(name="s", workloads=workload, batch_sizes=(4, 512), budgets=Epochs(1)).declaration()
backend = PackedBackend(trace(workload), slots=2)
for batch_size in (4, 512):
    (outcome,) = train(backend, [study.trial(SGD(), batch_size, 0.25, 0)], Milestones())
    print(hashlib.sha256(repr(outcome.measurements).encode()).hexdigest())
print(backend.circumstances)
backend.close()
"""


def trained(devices, threads):
    environment = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
    environment |= {"NPROC": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(devices)], env=environment, capture_output=True, text=True, check=True
    )
    return tuple(done.stdout.split("\n")[:3])


@pytest.fixture(scope="module")
def emulated():
    """One and four cores, each with a device a core."""
    return {cores: trained(cores, cores) for cores in (1, 4)}


def test_where_the_number_of_cores_decides_bits_the_circumstances_tell_it(emulated):
    for cores, (_, large, circumstances) in emulated.items():
        assert f"{cores} threads" in circumstances
        for others, (_, large_there, circumstances_there) in emulated.items():
            assert large == large_there or circumstances != circumstances_there, (cores, others)


def test_small_batches_have_the_same_bits_on_any_number_of_cores(emulated):
    assert len({small for small, _, _ in emulated.values()}) == 1


def test_the_same_threads_give_the_same_bits_on_any_number_of_devices(emulated):
    assert trained(1, 4) == emulated[4]
