"""A study trained by two processes together, under JAX's distributed runtime."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import together

import sgdscope as sg
from sgdscope.streaming import streamed
from sgdscope.streaming.distributed import World
from sgdscope.workloads.digits import digits


def by_two(folder, *how):
    """Run both processes, of which the second does otherwise where told so, and return how they ended."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [
                sys.executable,
                Path(together.__file__),
                folder,
                address,
                str(number),
                *map(str, how if number else ()),
            ],
            env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    said = [process.communicate(timeout=240)[1] for process in both]
    return [process.returncode for process in both], said


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


@pytest.mark.parametrize(
    ("how", "where", "told"),
    [
        ("wider", "the study", "fields of workload digits [['hidden', 17]], the first [['hidden', 16]]"),
        ("more", "the study", "batch_sizes [32, 64, 128], the first [32, 64]"),
        ("seed", "what they train", "trial "),
    ],
)
def test_a_process_that_would_train_something_else_ends_both_before_anything_is_trained(tmp_path, how, where, told):
    codes, said = by_two(tmp_path / "two", how)
    assert 0 not in codes
    for process in said:
        assert f"ToldError: the processes differ in {where}: process 1 has {told}" in process
    assert not list(tmp_path.glob("two/trials/*"))
    assert not list(tmp_path.glob("two/checkpoints/*"))


def test_where_one_cannot_go_on_it_says_so_and_the_other_ends_soon(tmp_path):
    begun = time.monotonic()
    codes, said = by_two(tmp_path / "two", "cannot")
    assert time.monotonic() - begun < 60  # JAX itself waits for five minutes
    assert codes[1] == 2
    assert "process 1 of 2 ends, and the others with it: image 1023 cannot be read.\n" in said[1]
    assert codes[0] != 0


def test_both_are_told_of_what_is_wrong_with_the_folder(tmp_path):
    sg.run(together.study().changed({"evaluate_at": (0.25, 1.0), "seeds": 1}), tmp_path / "two")
    codes, said = by_two(tmp_path / "two")
    assert codes == [1, 1]
    for process in said:
        assert "two holds another study, which differs in evaluate_at (there 0.25, 1.0, here 0.5, 1.0)" in process


def test_it_is_said_what_each_process_has_otherwise_than_the_first(monkeypatch):
    texts = [{"trial": "a", "step": "7"}, {"trial": "a", "step": "7"}, {"trial": "a", "step": "5"}, {"step": "7"}]
    monkeypatch.setattr(World, "gather", lambda self, text: [json.dumps(own) for own in texts])
    with pytest.raises(sg.InputError) as raised:
        World().agree("the trials", texts[0], "start again")
    assert str(raised.value) == (
        "the processes differ in the trials: process 2 has step 5, the first 7; process 3 has trial None, the first a; "
        "start again."
    )
    monkeypatch.setattr(World, "gather", lambda self, text: [text, text])
    World().agree("the trials", texts[0], "start again")


def test_processes_on_the_same_cores_share_them(monkeypatch):
    monkeypatch.setattr(streamed, "cores", lambda: 8)
    for beside, share in (([], 8), (["another host"], 8), ([True] * 2 + ["another host"], 2), ([True] * 15, 1)):
        monkeypatch.setattr(
            World, "gather", lambda self, own, beside=beside: [own] + [own if b is True else b for b in beside]
        )
        assert streamed._share_of_cores(World()) == share


def test_what_processes_cannot_share_is_refused_in_a_sentence(monkeypatch):
    study, two = together.study(), World(0, 2)
    monkeypatch.setattr(World, "agree", lambda *of: None)
    two.agree_on(study, study.declaration(), {})
    with pytest.raises(sg.InputError, match="devices_per_trial: 1 is not 2, the devices of all 2 processes"):
        two.agree_on(study.changed({"devices_per_trial": 1}), study.declaration(), {})
    with pytest.raises(sg.InputError, match="workload 'digits' has its data on the devices"):
        two.agree_on(study.changed({"workloads": (digits(),)}), study.declaration(), {})
    devices = [SimpleNamespace(process_index=process) for process in (0, 1, 1)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    with pytest.raises(sg.InputError, match=r"the processes have 1, 2 devices\. .* give all of them as many"):
        two.agree_on(study, study.declaration(), {})
