"""Whole studies on Ray: `make test-ray` installs it, and without it these tests are skipped."""

import io
import os
import signal
import warnings
from dataclasses import replace

import jax.numpy as jnp
import pytest
from rich.console import Console

import sgdscope as sg
from sgdscope.engine import run
from sgdscope.engine.crew import Crew
from sgdscope.store import Store
from sgdscope.testing.quadratic import NoisyQuadratic

ray = pytest.importorskip("ray")


STUDY_FILE = """
from dataclasses import replace

import beside
import optax

import sgdscope as sg
from sgdscope.testing.quadratic import NoisyQuadratic

study = sg.Study(
    name="mine", workloads=replace(NoisyQuadratic().workload(), init=lambda key: beside.start()), batch_sizes=64,
    budgets=sg.Steps(4), seeds=2, learning_rates=0.25, optimizers=sg.Optax("own", lambda rate: optax.sgd(rate)),
)
"""


@pytest.fixture(autouse=True)
def _other_programs_warnings():
    """Ray warns of its own future, and JAX that it has threads where Ray starts a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def cluster():
    """Two machines of one CPU each, of which this process is connected to the first."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.second = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def quadratic(**changes):
    plain = {
        "name": "quadratic", "workloads": NoisyQuadratic().workload(), "batch_sizes": (4, 16), "budgets": sg.Epochs(1),
        "seeds": 4, "optimizers": sg.SGD(),
    }  # fmt: skip
    return sg.Study(**(plain | changes))


@pytest.fixture(scope="module")
def never(tmp_path_factory):
    """The study of a single process."""
    return sg.run(quadratic(), tmp_path_factory.mktemp("never") / "s", Console(quiet=True))


def by_ray(study, folder):
    said = io.StringIO()
    return sg.run(study, folder, Console(file=said, width=1000), engine="ray"), said.getvalue()


def same(one, other):
    assert one.numbers().equals(other.numbers())
    assert one.measurements.equals(other.measurements)
    assert one.correctness.equals(other.correctness)


def test_a_study_on_a_ray_of_its_own_is_that_of_one_process(never, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    result, said = by_ray(quadratic(), tmp_path / "s")
    same(result, never)
    assert set(result.trials["devices"]) == {1}
    assert set(result.trials["device"]) == set(never.trials["device"])  # with as many threads, which decide bits
    assert "does not see" not in said
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is handler
    assert "RAY_worker_niceness" not in os.environ


def test_a_study_that_loses_a_machine_is_that_of_one_process(cluster, never, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(run, "PACK_SECONDS", 0.0)
    plain, commits, is_free = Store.commit, [], Crew.is_free.fget
    # No pack is given out before both machines have joined, so that the one which is lost has a part in it.
    monkeypatch.setattr(Crew, "is_free", property(lambda crew: is_free(crew) and bool(crew.count == 2 or commits)))

    def commit(self, *tables):
        rows = plain(self, *tables)
        commits.extend(rows["trial_id"])
        if cluster.second and len(commits) >= 6:
            cluster.remove_node(cluster.second, allow_graceful=False)
            cluster.second = None
            cluster.add_node(num_cpus=1)
        return rows

    monkeypatch.setattr(Store, "commit", commit)
    result, said = by_ray(quadratic(), tmp_path / "s")
    assert cluster.second is None
    assert said.count("was lost. What it trained is trained again, on another device.") == 1
    assert capfd.readouterr().out == ""  # whose logs Ray would print
    same(result, never)
    assert sorted(commits) == sorted(never.trials["trial_id"])
    assert ray.is_initialized()  # it is not ours to end


def test_a_study_file_with_an_optimizer_and_a_module_of_its_own_is_sent_as_it_is(cluster, tmp_path):
    (tmp_path / "beside.py").write_text("import jax.numpy as jnp\n\n\ndef start():\n    return jnp.ones(4)\n")
    path = tmp_path / "mine.py"
    path.write_text(STUDY_FILE)
    study = sg.studies.get(str(path))
    result, _ = by_ray(study, tmp_path / "s")
    same(result, sg.run(study, tmp_path / "never", Console(quiet=True)))


def test_functions_that_are_others_elsewhere_are_refused(cluster, tmp_path):
    here = os.getpid()
    workload = replace(NoisyQuadratic().workload(), init=lambda key: jnp.full(4, float(os.getpid() == here)))
    with pytest.raises(sg.InputError, match="functions of workload quadratic compute something else on"):
        by_ray(quadratic(workloads=workload), tmp_path / "s")
    assert not list((tmp_path / "s").glob("trials/*"))


def test_a_workload_that_cannot_be_sent_is_refused(cluster, tmp_path):
    with (tmp_path / "open").open("w") as file:

        def init(key):
            return jnp.zeros(4) + len(file.name) * 0

        workload = replace(NoisyQuadratic().workload(), init=init)
        message = r"^workload 'quadratic' cannot be sent to other processes \([Cc]annot pickle .*\)\. Keep what only"
        with pytest.raises(sg.InputError, match=message):
            by_ray(quadratic(workloads=workload), tmp_path / "s")


def test_more_devices_for_a_trial_than_a_machine_has_are_refused(cluster, tmp_path):
    with pytest.raises(
        sg.InputError, match=r"^devices_per_trial: no machine of the Ray cluster has 2 CPUs\. Use fewer"
    ):
        by_ray(quadratic(devices_per_trial=2), tmp_path / "s")
