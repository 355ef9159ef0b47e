"""What differs is found in the declarations, and named in plain words."""

from dataclasses import replace

import polars as pl
import pytest

import sgdscope as sg
from sgdscope.analysis.tables import Tables
from sgdscope.comparison.matching import matched
from sgdscope.comparison.side import Side
from sgdscope.comparison.what_differs import sentence, unequal_efforts, what_differs
from sgdscope.study import Declaration
from sgdscope.testing.simulated import RECORD

BASE = replace(RECORD, fields=(("hidden", 64), ("l2", 0.0005)))


SGD, THIRTY = (sg.SGD(),), (sg.Epochs(30),)


def side(name, record=BASE, programs=None, optimizers=SGD, budgets=THIRTY, **fields):
    declaration = Declaration(
        name=name, workloads=[record], batch_sizes=(8, 32), optimizers=optimizers, budgets=budgets, **fields
    )
    rows = [
        {"workload": record.name, "budget": str(budget), "optimizer": str(of), "batch_size": size, "seed": seed}
        for budget in budgets
        for of in optimizers
        for size in (8, 32)
        for seed in (0, 1)
    ]
    trials = pl.DataFrame(rows).with_columns(
        learning_rate=pl.lit(0.1), effective_learning_rate=pl.lit(0.1), status=pl.lit("complete"), steps=pl.lit(100),
        validation_score=pl.lit(0.9), test_score=pl.lit(0.9), train_loss=pl.lit(0.1),
    )  # fmt: skip
    return Side(name, Tables(trials, {record.name: record}), declaration, programs or {}, ())


def found(*sides):
    pairs, _ = matched(sides)
    return what_differs(sides, pairs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedule": sg.Cosine()}, "the schedule: halving against cosine"),
        ({"record": replace(BASE, fields=(("hidden", 64), ("l2", 0.0)))}, "the workload's L2: 0.0005 against 0"),
        ({"record": replace(BASE, fields=(("hidden", 64),))}, "the workload's L2: 0.0005 against none"),
        ({"optimizers": (sg.SGD(momentum=0.9),)}, "the optimizer: sgd against momentum:0.9"),
        ({"budgets": (sg.Epochs(60),)}, "the budget: epochs:30 against epochs:60"),
        ({"record": replace(BASE, examples=(512, 256, 517))}, "the training examples: 1,024 against 512"),
        ({"record": replace(BASE, ghost_batch_size=8)}, "the workload's ghost batch size: 1 against 8"),
        ({"record": replace(BASE, name="other")}, "the workload: simulated against other"),
        (
            {"record": replace(BASE, data_sha256="1" * 64)},
            "the workload's data: other examples or labels, as many of them",
        ),
        (
            {"programs": {"jax 1, workload simulated": "b"}},
            "the workload's functions: its network, loss, score or augmentation is another program",
        ),
        ({"compute_dtype": "bfloat16"}, "the type of the matrix products in gradients: float32 against bfloat16"),
    ],
)
def test_one_thing_is_named(change, words):
    sides = side("a", programs={"jax 1, workload simulated": "a"}), side("b", **change)
    assert found(*sides) == [words]
    assert sentence(sides, [words]) == f"a and b differ in {words}."


def test_what_follows_from_a_field_is_no_second_thing():
    """Noisy labels are other data, and another width is another program."""
    noisy = replace(BASE, fields=(("hidden", 64), ("l2", 0.0005), ("label_noise", 0.2)), data_sha256="2" * 64)
    sides = (
        side("a", programs={"jax 1, workload simulated": "a"}),
        side("b", noisy, programs={"jax 1, workload simulated": "b"}),
    )
    assert found(*sides) == ["the workload's label noise: none against 0.2"]


def test_more_than_one_thing_is_said_to_be():
    sides = side("a"), side("b", replace(BASE, fields=()), schedule=sg.Constant())
    differs = found(*sides)
    assert differs == [
        "the workload's hidden: 64 against none",
        "the workload's L2: 0.0005 against none",
        "the schedule: halving against constant",
    ]
    assert "differ in more than one thing, so no difference in results has one known cause" in sentence(sides, differs)


def test_seeds_and_rates_change_no_result_but_its_precision():
    sides = side("a", seeds=5), side("b", seeds=15, learning_rates=(0.1, 0.2))
    assert found(*sides) == []
    assert unequal_efforts(sides) == ["seeds: 5 against 15", "learning rates: searched against 0.1, 0.2"]
    assert sentence(sides, []) == "a and b: no difference was found in what was trained."


def test_three_studies_have_three_values():
    sides = side("a"), side("b", schedule=sg.Cosine()), side("c", schedule=sg.Constant())
    assert found(*sides) == ["the schedule: halving against cosine against constant"]
