import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sgdscope.errors import InputError
from sgdscope.streaming import workers as pipeline
from sgdscope.streaming.workers import WorkerDiedError, Workers

LAYOUT = {"x": ((3,), np.dtype(np.float32)), "label": ((), np.dtype(np.uint16))}


def read(number, label=7):
    """In the processes."""
    if number < 0:
        raise KeyError(number)
    return {"x": np.arange(3, dtype=np.float32) + number, "label": np.uint16(label)}


def read_or_die(number):
    if number == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(number)


def give(example):
    return example


def leave(_):
    os._exit(1)  # as where the script has no guard


def who(_):
    return {"x": np.zeros(3, np.float32), "label": np.uint16(os.getpid() % 2**16)}


def requests(sizes):
    start = 0
    for size in sizes:
        yield [(number, number % 5) for number in range(start, start + size)]
        start += size


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("tasks", [3, 100])
def test_batches_come_in_order_and_hold_what_was_asked_for_whatever_the_number_of_processes(count, tasks, monkeypatch):
    monkeypatch.setattr(pipeline, "MOST_TASKS", tasks)
    monkeypatch.setattr(pipeline, "TASKS_FOR_EACH", 1)
    workers = Workers(read, LAYOUT, count)
    sizes = (1, 16, 17, 100, 3, 40)  # one of them is more than all the shared memory of three tasks
    for _ in range(2):  # the second time with the processes that are there
        batches = list(workers.batches(requests(sizes)))
        assert [len(batch["x"]) for batch in batches] == list(sizes)
        numbers = np.arange(sum(sizes))
        seen = {key: np.concatenate([batch[key] for batch in batches]) for key in LAYOUT}
        np.testing.assert_array_equal(seen["x"], numbers[:, None] + np.arange(3, dtype=np.float32))
        np.testing.assert_array_equal(seen["label"], numbers % 5)
        assert {key: (array.shape[1:], array.dtype) for key, array in seen.items()} == LAYOUT
    workers.close()


def test_what_is_left_half_way_leaves_nothing_behind():
    workers = Workers(read, LAYOUT, 2)
    first = next(workers.batches(requests([20] * 10)))
    kept = {key: array.copy() for key, array in first.items()}
    (other,) = workers.batches([[(1000, 1)] * 5])
    assert (other["x"][:, 0] == 1000).all()
    assert all((first[key] == kept[key]).all() for key in kept)
    workers.close()


def test_an_error_in_a_process_is_the_callers_and_the_next_batch_is_read():
    workers = Workers(read, LAYOUT, 1)
    with pytest.raises(KeyError, match="-1"):
        list(workers.batches([[(1,), (-1,)], [(2,)]]))
    (batch,) = workers.batches([[(3,)]])
    assert batch["x"][0, 0] == 3
    workers.close()


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ({"x": np.zeros(3, np.float32)}, "gave the arrays x, its layout has x, label"),
        ({"x": np.zeros(3, np.float32), "label": np.uint16(1), "y": 0}, "gave the arrays x, label, y, its layout has"),
        ({"x": np.zeros(3), "label": np.uint16(1)}, r"gave 'x' as float64 of shape \(3,\), its layout says float32"),
        ({"x": np.float32(0), "label": np.uint16(1)}, r"gave 'x' as float32 of shape \(\), its layout says .* \(3,\)"),
        ({"x": np.zeros(3, np.float32), "label": 1}, "gave 'label' as int64 of shape"),
    ],
)
def test_an_example_that_is_not_what_the_layout_says_is_refused(example, said):
    workers = Workers(functools.partial(give, example), LAYOUT, 1)
    with pytest.raises(InputError, match=said):
        list(workers.batches([[()]]))
    workers.close()


def test_a_process_that_is_killed_is_named_and_new_ones_go_on():
    workers = Workers(read_or_die, LAYOUT, 2)
    with pytest.raises(
        WorkerDiedError,
        match=r"Data-loading worker \d+ \(SIGKILL\) was killed, .*Run the same command",
    ):
        list(workers.batches([[(number,) for number in range(100)]]))
    (batch,) = workers.batches([[(number,) for number in range(40)]])
    assert (batch["x"][:, 0] == np.arange(40)).all()
    workers.close()


def test_a_script_without_a_guard_is_told_of_it():
    workers = Workers(leave, LAYOUT, 1)
    with pytest.raises(WorkerDiedError, match=r"\(exit code 1\) ended early\. A Python script .* __name__"):
        list(workers.batches([[(0,)]]))


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    """Nobody would end them otherwise: each holds both ends of the queue that it waits at."""
    program = (
        "import os, sys, signal\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "if __name__ == '__main__':\n"
        "    from test_workers import LAYOUT, Workers, who\n"
        "    (batch,) = Workers(who, LAYOUT, 1).batches([[(0,)]])\n"
        "    import multiprocessing\n"
        "    print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "parent.py").write_text(program)
    ended = subprocess.run([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    (child,) = map(int, ended.stdout.split())
    deadline = time.monotonic() + 30
    while _alive(child) and time.monotonic() < deadline:
        pass
    assert not _alive(child)


def test_ctrl_c_while_the_processes_begin_is_for_the_parent_alone(tmp_path):
    """It goes to all that a terminal runs: a process that is still importing would end and break the pool."""
    program = (
        "import multiprocessing, os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "if __name__ == '__main__':\n"
        "    from test_workers import LAYOUT, Workers, read\n"
        "    class Interrupted(Workers):\n"
        "        def _submit(self, *of):\n"
        "            piece = super()._submit(*of)\n"
        "            if of[2] == 96:\n"
        "                os.killpg(0, signal.SIGINT)\n"
        "            return piece\n"
        "    workers = Interrupted(read, LAYOUT, 4)\n"
        "    try:\n"
        "        list(workers.batches([[(number,) for number in range(1000)]]))\n"
        "    except KeyboardInterrupt:\n"
        "        (batch,) = workers.batches([[(7,)]])\n"
        "        print('interrupted', batch['x'][0, 0], flush=True)\n"
        "        workers.close()\n"
    )
    (tmp_path / "parent.py").write_text(program)
    ended = subprocess.run(
        [sys.executable, tmp_path / "parent.py"], capture_output=True, text=True, timeout=60, start_new_session=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "interrupted 7.0\n", "")


def test_processes_that_a_pool_forgot_are_ended():
    process = multiprocessing.get_context("spawn").Process(target=signal.pause)
    process.start()
    asked = []
    pipeline.end(SimpleNamespace(shutdown=lambda **of: asked.append(of), _broken="a process died"), [process])
    assert process.exitcode == -signal.SIGTERM
    assert asked == [{"cancel_futures": True}]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
