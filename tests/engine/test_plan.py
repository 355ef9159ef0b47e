import gc
import threading
import weakref
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from sgdscope.budget import Epochs, Steps, Unlimited
from sgdscope.engine.plan import SECONDS_BESIDE, Costs, expansion, microbatch_proposal, packs, rates_expected, remaining
from sgdscope.engine.search import Round, Search, search
from sgdscope.models.convolution import convolution
from sgdscope.optimizers import KFAC, SGD, SVRG
from sgdscope.schedules import HALVING
from sgdscope.store import TRIALS_SCHEMA
from sgdscope.study import Study
from sgdscope.training.compiler import AT_ONCE, Compiler, CompileTime
from sgdscope.training.step import Kind
from sgdscope.training.traced import trace
from sgdscope.workloads.base import Workload
from sgdscope.workloads.digits import digits

# A picture of digits passes through 64 × 16, 16 × 16 and 16 × 10 weights, at two operations a weight.
FORWARD = 2 * (64 * 16 + 16 * 16 + 16 * 10)
# The gradient of the weights costs as much again, and that of the activations too, but for the pictures'.
UPDATE = 3 * FORWARD - 2 * 64 * 16


@pytest.fixture(scope="module")
def workload():
    return digits(hidden=16)


def test_operations_are_those_counted_by_hand(workload):
    assert trace(workload).operations_per_example == UPDATE
    # 1,024 and 256 pictures are whole chunks, and so are 517.
    assert trace(workload).operations_per_evaluation == (1024 + 256 + 517) * FORWARD
    costs = Costs(trace(workload), evaluations=2)
    assert costs.operations(10, 32) == 10 * 32 * UPDATE + 2 * (1024 + 256 + 517) * FORWARD
    estimating = Costs(trace(workload), evaluations=0, noise_scales=3)
    assert estimating.operations(10, 32) == (10 * 32 + 3 * 1024) * UPDATE
    # 16 products with the Hessian of the loss of 1,024 pictures, each for two gradients.
    sharp = Costs(trace(workload), evaluations=0, sharpnesses=3)
    assert sharp.operations(10, 32) == (10 * 32 + 3 * 16 * 2 * 1024) * UPDATE


def test_operations_of_convolutions_and_loops_are_those_counted_by_hand():
    def loss(p, state, batch):
        x = jax.lax.conv_general_dilated(
            batch["x"], p["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        for_each = lambda carry, _: (carry @ p["square"], None)
        return jax.lax.scan(for_each, x.sum(axis=(1, 2)), length=7)[0].sum(axis=1) ** 2

    split = {"x": np.ones((4, 8, 8, 3), np.float32)}
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=loss, score=loss,
        init=lambda key: {"kernel": jnp.ones((3, 3, 3, 5)), "square": jnp.ones((5, 5))},
        constant_loss=1.0, constant_score=1.0,
    )  # fmt: skip
    forward = 4 * (2 * 3 * 3 * 3 * 5 * 4 * 4 + 7 * 2 * 5 * 5)
    assert trace(workload).operations_per_evaluation == 3 * forward


@pytest.mark.parametrize("batch_size", [4, 10, 16, 64, 1024])
def test_seconds_follow_the_line_through_what_was_timed(workload, batch_size):
    costs = Costs(trace(workload), evaluations=0)
    assert costs.per_update(8) is None
    assert costs.per_trial(10, 8) is None
    for size in (4, 64):
        costs.note(size, 1e-3 + 1e-4 * size)
    assert costs.per_update(batch_size) == pytest.approx(1e-3 + 1e-4 * batch_size)
    assert costs.per_trial(100, batch_size) == pytest.approx(100 * (1e-3 + 1e-4 * batch_size))


class Clock:
    """A backend whose updates take a known time."""

    seconds_to_read = 0.0

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, []

    def seconds_per_update(self, kind):
        self.asked.append(kind.batch_size)
        return self.seconds(kind.batch_size)


def kinds(*sizes):
    return [Kind(size, size, SGD(), HALVING) for size in sizes]


@pytest.mark.parametrize(("per_example", "asked"), [(1e-6, [16, 4096]), (1e-2, [16, 128]), (1.0, [16])])
def test_what_would_take_long_is_not_probed(workload, per_example, asked):
    clock = Clock(lambda size: per_example * size)
    costs = Costs(trace(workload), evaluations=0)
    costs.probe(clock, kinds(16, 64, 128, 512, 4096))
    assert clock.asked == asked
    assert costs.per_update(4096) == pytest.approx(per_example * 4096)


def test_each_rule_is_timed_by_itself_and_one_that_is_not_goes_by_its_operations(workload):
    """SVRG takes three gradients; K-FAC's products are those of a gradient and two thirds, of factors and inverses."""
    rules = SGD(), SVRG(), KFAC()
    seconds = {SGD(): 1e-4, SVRG(): 5e-4}

    class OfRules(Clock):
        def seconds_per_update(self, kind):
            self.asked.append((kind.optimizer, kind.batch_size))
            return seconds[kind.optimizer] * (1 + kind.batch_size)

    clock, costs = OfRules(None), Costs(trace(workload), evaluations=0)
    costs.probe(clock, [Kind(size, size, rule, HALVING) for rule in rules[:2] for size in (16, 64)])
    assert clock.asked == [(rule, size) for rule in rules[:2] for size in (16, 64)]
    assert costs.programs_timed == 4
    for rule in rules[:2]:
        assert costs.per_update(40, rule) == pytest.approx(seconds[rule] * 41)
    assert costs.operations(10, 32, SVRG()) == 3 * costs.operations(10, 32)
    sizes = ((65, 16), (17, 16), (17, 10))  # inputs with the bias's, and outputs
    factors = sum(2 * 32 * (n**2 + m**2) + 2 * (n**3 + m**3) / 5 + 2 * n * m * (n + m) for n, m in sizes)
    of_kfac = 32 * UPDATE * 5 / 3 + factors
    assert costs.operations(10, 32, KFAC()) == pytest.approx(10 * of_kfac, abs=1)
    expected = costs.per_update(32) * of_kfac / (32 * UPDATE)
    assert costs.per_update(32, KFAC()) == pytest.approx(expected)
    costs.note(32, 0.5, KFAC())
    assert costs.per_update(32, KFAC()) == 0.5
    assert costs.per_update(32, SGD()) == pytest.approx(1e-4 * 33)


def test_a_machine_that_was_busy_when_it_was_probed_is_believed_when_it_is_not(workload):
    costs = Costs(trace(workload), evaluations=0)
    costs.probe(Clock(lambda size: 5 * (1e-3 + 1e-5 * size)), kinds(16, 1024))
    assert costs.per_update(256) == pytest.approx(5 * (1e-3 + 1e-5 * 256))
    costs.note(1024, 1e-3 + 1e-5 * 1024)
    for size in (16, 256, 1024):
        assert costs.per_update(size) == pytest.approx(1e-3 + 1e-5 * size)


def test_evaluation_is_part_of_a_trials_seconds_and_taken_off_a_packs(workload):
    with_none, with_two = Costs(trace(workload), 0), Costs(trace(workload), 2)
    for costs in (with_none, with_two):
        costs.note(64, 0.01)
    evaluating = with_two.per_trial(100, 64) - with_none.per_trial(100, 64)
    assert evaluating == pytest.approx(2 * (1024 + 256 + 517) * FORWARD / (64 * UPDATE / 0.01))
    taken = with_two.training_seconds(3 * (1.0 + evaluating), trials=3, updates=300, batch_size=64)
    assert taken == pytest.approx(3.0)
    unknown = Costs(trace(workload), 2)
    assert unknown.training_seconds(3 * (1.0 + evaluating), 3, 300, 64) == pytest.approx(3.0)


def test_estimates_of_the_noise_take_what_updates_of_their_batches_do(workload):
    costs, plain = Costs(trace(workload), 0, noise_scales=2), Costs(trace(workload), 0)
    for each in (costs, plain):
        each.note(16, 0.001)
        each.note(64, 0.003)
    assert costs.per_trial(100, 64) - plain.per_trial(100, 64) == pytest.approx(2 * 64 * 0.001)
    assert costs.training_seconds(3 * (0.3 + 2 * 64 * 0.001), 3, 300, 64) == pytest.approx(0.9)


@pytest.mark.parametrize("first", [0.2, 5.0])
def test_what_an_update_takes_settles_though_evaluation_takes_most_of_a_pack(workload, first):
    """From a first guess that is far off; at two batch sizes in turn, as a search has them."""
    true = {16: 1e-4, 1024: 2e-3}
    evaluating = 2 * (1024 + 256 + 517) * FORWARD * 2e-3 / (1024 * UPDATE)
    costs = Costs(trace(workload), 2)
    costs.probe(Clock(lambda size: first * true[size]), kinds(16, 1024))
    for _ in range(30):
        for size, seconds in true.items():
            pack = 3 * (2 * seconds + evaluating)
            costs.note(size, costs.training_seconds(pack, trials=3, updates=6, batch_size=size) / 6)
    assert costs.per_update(1024) == pytest.approx(2e-3, rel=1e-3)
    assert costs.per_update(16) == pytest.approx(1e-4, rel=0.05)


def test_packs_hold_one_batch_size_and_no_more_than_there_is_room(workload):
    declared = Study(name="s", workloads=workload, batch_sizes=(32, 64), budgets=Epochs(1)).declaration()
    trials = [declared.trial(o, b, 1.0, s) for s in range(3) for b in (32, 64) for o in (SGD(), SGD(momentum=0.9))]
    asked = []

    def room(trial):
        asked.append(trial.batch_size)
        return 4 if trial.batch_size == 64 else 6

    coming = packs(trials, room)
    grouped = [next(coming)]
    assert asked == [64]  # of the next kind nothing has been asked yet
    grouped += coming
    assert [(pack[0].batch_size, len(pack)) for pack in grouped] == [(64, 4), (64, 2), (32, 6)]
    assert sorted(t.id for pack in grouped for t in pack) == sorted(t.id for t in trials)
    assert all(len({t.batch_size for t in pack}) == 1 for pack in grouped)


@pytest.mark.parametrize(("ours", "slow"), [(True, 0), (False, 2)])
def test_convolutions_whose_gradient_is_slow_on_a_cpu_are_found(ours, slow):
    """JAX's own gradient asks for two more: that of the kernel, and that of what the first layer put out."""

    def convolved(x, kernel):
        if ours:
            return convolution(x, kernel)
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    split = {"x": np.ones((4, 8, 8, 3), np.float32)}
    loss = lambda p, state, batch: (convolved(jnp.tanh(batch["x"] * p["scale"]), p["kernel"]) ** 2).sum(axis=(1, 2, 3))
    workload = Workload(
        name="w", version="1", train=split, validation=split, test=split, loss=loss, score=loss,
        init=lambda key: {"kernel": jnp.ones((3, 3, 3, 5)), "scale": jnp.ones(())},
        constant_loss=1.0, constant_score=1.0,
    )  # fmt: skip
    assert trace(workload).slow_convolutions == slow


def test_a_study_is_written_out_in_a_block_for_each_workload_and_budget(workload):
    other = replace(workload, name="other")
    study = Study(
        name="s", workloads=(workload, other), batch_sizes=(32, 64), budgets=(Steps(7), Epochs(4), Unlimited(1, 4))
    )
    costs = {each.name: Costs(trace(each), 2) for each in study.workloads}
    blocks = expansion(study.declaration(), costs).split("\n\n")
    said = [[line for line in block.splitlines() if line.startswith(("workload", "budget"))] for block in blocks]
    reached = " (as far as unlimited:1:4 goes)"
    assert said == [
        [f"workload    {name}, version 1: hidden 16", f"budget      {budget}, evaluated at 0.5, 1"]
        for name in ("digits", "other")
        for budget in (f"epochs:1{reached}", f"epochs:2{reached}", "epochs:4", "steps:7")
    ]
    assert all(len(block.splitlines()) == 10 for block in blocks)
    measured = expansion(study.changed({"noise_scale_at": (0, 0.5)}).declaration(), costs)
    assert "\nbudget      epochs:4, evaluated at 0.5, 1, noise scale at 0, 0.5\n" in measured
    measured = expansion(study.changed({"sharpness_at": (0.1, 1)}).declaration(), costs)
    assert "\nbudget      epochs:4, evaluated at 0.5, 1, sharpness at 0.1, 1\n" in measured
    assert "gradients" not in measured
    rounded = expansion(study.changed({"compute_dtype": "bfloat16"}).declaration(), costs)
    assert "\noptimizers  sgd, momentum:0.9, gradients in bfloat16\n" in rounded


def test_what_remains_is_counted_over_all_workloads_and_budgets(workload):
    """A workload that has not been timed goes at the speed of the other."""
    other = replace(workload, name="other")
    study = Study(
        name="s",
        workloads=(workload, other),
        batch_sizes=(32, 64),
        budgets=(Epochs(1), Steps(7)),
        learning_rates=(1.0,),
    )
    declared, nothing = study.declaration(), pl.DataFrame(schema=TRIALS_SCHEMA)
    costs = {each.name: Costs(trace(each), 0) for each in study.workloads}
    assert remaining(declared, search(declared, nothing), costs).seconds is None
    for size in (32, 64):
        costs["digits"].note(size, size * 1e-3)
    plan = remaining(declared, search(declared, nothing), costs)
    assert (plan.cells, plan.trials) == (2 * 2 * 2 * 2, 2 * 2 * 2 * 2 * 5)
    updates = {32: 32 + 7, 64: 16 + 7}
    assert plan.updates == 2 * 2 * 5 * sum(updates.values())
    assert plan.examples == 2 * 2 * 5 * sum(size * each for size, each in updates.items())
    assert plan.seconds == pytest.approx(plan.examples * 1e-3 + plan.trials * SECONDS_BESIDE)


def test_the_remaining_time_counts_compiling_and_leans_on_other_studies_while_few_cells_are_done(workload):
    study = Study(name="s", workloads=workload, batch_sizes=(32, 64), budgets=Steps(7), seeds=5)
    declared, nothing = study.declaration(), pl.DataFrame(schema=TRIALS_SCHEMA)
    costs = {"digits": Costs(trace(workload), 0)}
    costs["digits"].note(32, 1e-3)
    found = search(declared, nothing)
    plain = remaining(declared, found, costs)
    assert remaining(declared, found, costs, compiling=3.5).seconds == pytest.approx(plain.seconds + 3.5)
    # One cell that needed 30 rates rather than the 8 expected does not make 30 of all the others.
    (first, *others) = [*found.rounds, *(Round(cell, [], []) for cell in found.waiting)]
    done = Round(first.cell, first.trials[:1] * 30 * 5, [])
    after = remaining(declared, Search([done], [stands.cell for stands in others]), costs)
    assert after.trials / len(others) / 5 == pytest.approx((4 * rates_expected(declared) + 30) / 5, abs=0.2)
    finished = remaining(declared, Search([done], []), costs, compiling=3.5)
    assert (finished.trials, finished.seconds) == (0, 0)


def test_programs_that_are_waited_for_take_what_those_before_took():
    compiler = Compiler("cpu")
    assert compiler.seconds(3) == 0
    compiler.compile_times += [CompileTime("a", 1.0, 2.0), CompileTime("b", 0.0, 1.0)]
    assert compiler.seconds(3) == 3 * 2.0 / AT_ONCE
    go_on = threading.Event()
    made = [compiler.prepare(name, go_on.wait) for name in range(3)]  # a number is as good as a program
    assert compiler.pending == 3
    go_on.set()
    compiler.settle()
    assert (compiler.pending, len(made)) == (0, 3)
    compiler.close()


def test_nothing_that_was_counted_keeps_a_workload_alive():
    workload = digits(hidden=7)
    traced = trace(workload)
    assert traced.operations_per_example
    assert not traced.slow_convolutions
    assert traced.operations_per_evaluation
    assert traced.fingerprint
    seen = weakref.ref(workload)
    del workload, traced
    gc.collect()
    assert seen() is None


def test_a_gradient_is_traced_once_to_be_counted_and_looked_at(monkeypatch):
    workload, traced = trace(digits(hidden=9)), []  # which traces each function once more, to find what is not pure
    plain = jax.make_jaxpr
    monkeypatch.setattr(jax, "make_jaxpr", lambda *given, **named: traced.append(1) or plain(*given, **named))
    assert workload.operations_per_example == workload.operations_per_example
    assert not workload.slow_convolutions
    assert workload.fingerprint
    assert len(traced) == 1


@pytest.mark.parametrize(
    ("seconds", "multiple", "said"),
    [
        (
            {256: 0.4, 64: 0.2, 16: 0.1},
            1,
            "With --microbatch-size 16 an update at batch size 256 takes 0.1 s instead of",
        ),
        ({256: 0.4, 64: 0.2, 16: 0.1}, 32, "With --microbatch-size 64 "),
        ({256: 0.4, 64: 0.35, 16: 0.5}, 1, ""),
        ({256: 0.004, 64: 0.002, 16: 0.001}, 1, ""),
    ],
)
def test_a_microbatch_is_proposed_where_it_is_clearly_faster_and_matters(workload, seconds, multiple, said):
    class Timed:
        seconds_to_read = 0.0

        def seconds_per_update(self, kind):
            return seconds[kind.microbatch_size] if kind.batch_size == 256 else 1e-4

    kinds, costs = [Kind(size, size, SGD(), HALVING) for size in (64, 256)], Costs(trace(workload), 1)
    costs.probe(Timed(), kinds)
    found = microbatch_proposal(Timed(), kinds, costs, multiple)
    assert found.startswith(said)
    assert bool(found) == bool(said)
