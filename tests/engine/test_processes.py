"""A study trained by two processes together, under JAX's distributed runtime."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sgdscope as sg

SCRIPT = Path(__file__).parent / "together.py"


def begun(folder, address, number, devices, *more):
    return subprocess.Popen(
        [sys.executable, SCRIPT, folder, address, str(number), *map(str, more)],
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(folder, *killed, devices=1):
    """Run both processes, of which the second is killed after so many updates, and return how they ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [begun(folder, address, 0, devices), begun(folder, address, 1, devices, *killed)]
    said = [process.communicate(timeout=240)[1] for process in processes]
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "study"
    codes, said = together(folder)
    assert codes == [0, 0], said
    return sg.Result(folder)


def test_two_processes_train_what_one_with_two_devices_trains(by_two, tmp_path):
    alone = begun(tmp_path / "one", "", 0, 2)
    _, said = alone.communicate(timeout=240)
    assert alone.returncode == 0, said
    one = sg.Result(tmp_path / "one")
    assert by_two.finished
    assert by_two.trials["trial_id"].sort().to_list() == one.trials["trial_id"].sort().to_list()
    mine, theirs = by_two.measurements, one.measurements
    keys = ["trial_id", "step", "split", "metric"]
    assert mine.select(keys).equals(theirs.select(keys))
    np.testing.assert_allclose(mine["value"], theirs["value"], rtol=1e-5)
    assert by_two.correctness.equals(one.correctness)


def test_where_one_is_killed_both_end_and_the_same_command_goes_on_bit_for_bit(by_two, tmp_path):
    codes, _ = together(tmp_path / "s", 5)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    assert list((tmp_path / "s" / "checkpoints").iterdir())
    codes, said = together(tmp_path / "s")
    assert codes == [0, 0], said
    result = sg.Result(tmp_path / "s")
    assert result.measurements.equals(by_two.measurements)
    assert result.correctness.equals(by_two.correctness)


def test_devices_that_are_not_those_of_all_processes_are_refused(tmp_path):
    codes, said = together(tmp_path / "s", devices=2)
    assert all(codes)
    assert any("devices_per_trial: 2 is not 4, the devices of all 2 processes" in text for text in said)
