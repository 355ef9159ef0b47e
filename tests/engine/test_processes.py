"""A study trained by two processes together, under JAX's distributed runtime."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import together

import sgdscope as sg
from sgdscope.engine import local
from sgdscope.training import fed
from sgdscope.training.checkpoint import Checkpoint
from sgdscope.workloads.digits import digits


def by_two(folder, *killed):
    """Run both processes, of which the second is killed after so many updates, and return how they ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                Path(together.__file__),
                folder,
                address,
                str(number),
                *map(str, killed if number else ()),
            ],
            env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=240)[1] for process in processes]
    return [process.returncode for process in processes], said


def test_two_processes_train_what_one_with_two_devices_does_also_where_one_of_them_was_killed(tmp_path):
    codes, _ = by_two(tmp_path / "two", 17)  # in the second trial
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    assert len(sg.Result(tmp_path / "two").trials) == 1
    assert list((tmp_path / "two" / "checkpoints").iterdir())
    codes, said = by_two(tmp_path / "two")
    assert codes == [0, 0], said
    two, one = sg.Result(tmp_path / "two"), sg.run(together.study(), tmp_path / "one")
    assert two.finished
    assert two.trials["trial_id"].sort().to_list() == one.trials["trial_id"].sort().to_list()
    keys = ["trial_id", "step", "split", "metric"]
    assert two.measurements.select(keys).equals(one.measurements.select(keys))
    np.testing.assert_allclose(two.measurements["value"], one.measurements["value"], rtol=1e-5)
    assert two.correctness.equals(one.correctness)


def test_a_process_that_has_another_study_is_told_also_where_the_folder_is_new(tmp_path):
    codes, said = by_two(tmp_path / "two", 0)
    assert 0 not in codes
    assert "two holds another study, which differs in workload" in said[1]
    assert sg.Result(tmp_path / "two").trials.is_empty()


def test_processes_that_see_other_checkpoints_are_told(monkeypatch):
    trial = together.study().declaration().trial(sg.Momentum(), 32, 0.1, seed=0)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(fed, "process_allgather", lambda step: np.array([int(step), 5]))
    kept = Checkpoint([], 7, [], 1.0)
    with pytest.raises(sg.InputError, match=r"see different checkpoints of trial .* \(of steps 7, 5\)"):
        fed._agree(trial, kept)


def test_what_processes_cannot_share_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    study = together.study()
    local._check_processes(study)
    with pytest.raises(sg.InputError, match="devices_per_trial: 1 is not 2, the devices of all 2 processes"):
        local._check_processes(study.changed({"devices_per_trial": 1}))
    with pytest.raises(sg.InputError, match="workload 'digits' has its data on the devices"):
        local._check_processes(study.changed({"workloads": (digits(),)}))
