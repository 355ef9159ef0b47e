import json
from dataclasses import fields, replace
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
import pytest
import tyro

from sgdscope.budget import Epochs, Steps, Unlimited
from sgdscope.cli import Fields
from sgdscope.errors import InputError
from sgdscope.optimizers import SGD, AdamW, Optax, Values
from sgdscope.study import Declaration, Study
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.workloads.base import Streams, Workload, constant_classifier
from sgdscope.workloads.digits import digits

QUADRATIC = NoisyQuadratic().workload()
PLAIN = MappingProxyType({"name": "s", "workloads": QUADRATIC, "batch_sizes": (1, 2), "budgets": Epochs(1)})


def study(**changes):
    return Study(**(PLAIN | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_sizes": ()}, "batch_sizes: give at least one"),
        ({"score_margin": 0}, "score_margin: 0 is not positive and finite"),
        ({"score_margin": True}, "score_margin: True is not a number"),
        ({"score_margin": float("nan")}, "score_margin: nan is not positive and finite"),
        ({"score_margin": 0.001, "workloads": digits()}, "score_margin: 0.001 is less than one of the 517"),
        ({"score_margin": 1.5, "workloads": digits()}, "score_margin: 1.5 is as large as the range of an accuracy"),
        ({"batch_sizes": (0,)}, "batch_sizes: 0 is below 1"),
        ({"batch_sizes": (-3,)}, "batch_sizes: -3 is below 1"),
        ({"batch_sizes": (2.5,)}, "batch_sizes: 2.5 is not a whole number"),
        ({"batch_sizes": 64.0}, "batch_sizes: 64.0 is not a whole number"),
        ({"batch_sizes": (True,)}, "batch_sizes: True is not a whole number"),
        ({"batch_sizes": ("8",)}, "batch_sizes: '8' is not a whole number"),
        ({"batch_sizes": (257,)}, "batch_sizes: 257 is larger than the training set; use at most its 256"),
        ({"batch_sizes": (4, 4)}, "batch_sizes: 4, 4 names one twice"),
        ({"learning_rates": (0.0,)}, "learning_rates: 0.0 is not positive and finite"),
        ({"learning_rates": (-1,)}, "learning_rates: -1 is not positive and finite"),
        ({"learning_rates": (float("nan"),)}, "learning_rates: nan is not positive and finite"),
        ({"learning_rates": (float("inf"),)}, "learning_rates: inf is not positive and finite"),
        ({"learning_rates": ("fast",)}, "learning_rates: 'fast' is not a number"),
        ({"seeds": 0}, "seeds: 0 leaves nothing to train"),
        ({"seeds": 1.5}, "seeds: 1.5 is not a whole number"),
        ({"seeds": "5"}, "seeds: '5' is not a whole number"),
        ({"seeds": np.bool_(True)}, "seeds: True is not a whole number"),
        ({"seeds": 99999999999}, "seeds: 99999999999 is too large; use at most 10,000"),
        ({"seeds": 10**5000}, "seeds: a number of over 60 digits is too large; use at most 10,000"),
        ({"seeds": 9999, "batch_sizes": range(1, 257)}, "seeds: 2 optimizers × 256 batch sizes × .* 1,000,000 trials"),
        ({"batch_sizes": 10**30}, "batch_sizes: 1000000000000000000000000000000 is larger than the training set"),
        ({"batch_sizes": "64"}, "batch_sizes: '64' is not a whole number"),
        ({"batch_sizes": 257, "microbatch_size": 10**9}, "batch_sizes: 257 is larger than the training set"),
        ({"learning_rates": 1e-50}, "learning_rates: 1e-50 is beyond what training can hold"),
        ({"learning_rates": 1e300}, r"learning_rates: 1e\+300 is beyond what training can hold"),
        ({"learning_rates": "0.1"}, "learning_rates: '0.1' is not a number"),
        ({"evaluate_at": "1"}, "evaluate_at: '1' must be fractions"),
        ({"score_margin": "0.1"}, "score_margin: '0.1' is not a number"),
        ({"budgets": Epochs(1e308)}, r"budgets: epochs:1e\+308 at batch size 1 is over 10\^15 updates"),
        ({"budgets": Steps(10**15)}, r"budgets: steps:1000000000000000 at batch size 1 is over 10\^15 updates"),
        ({"workloads": "x" * 500}, r"workloads: 'x+ \(and 442 more characters\) is not a Workload"),
        ({"budgets": 30}, "budgets: 30 is not a budget"),
        ({"budgets": ()}, "budgets: give at least one"),
        ({"budgets": (Epochs(1), Epochs(1.0))}, "budgets: epochs:1, epochs:1 names one twice"),
        ({"workloads": (QUADRATIC, digits())[:0]}, "workloads: give at least one"),
        (
            {"workloads": (QUADRATIC, NoisyQuadratic(noise=2.0).workload())},
            "workloads: two are called 'quadratic'; give each a",
        ),
        (
            {"workloads": (QUADRATIC, digits()), "batch_sizes": (512,)},
            "batch_sizes: 512 is larger than the training set",
        ),
        ({"budgets": (Epochs(1), Epochs(1e9))}, r"budgets: epochs:1e\+09 at batch size 1 is"),
        ({"optimizers": ()}, "optimizers: give at least one"),
        ({"optimizers": ("adam",)}, "optimizers: 'adam' is not an optimizer"),
        ({"name": " "}, "name: a study needs a name"),
        ({"workloads": "digits"}, "workloads: 'digits' is not a Workload"),
        ({"evaluate_at": (0.5,)}, "evaluate_at: .* must rise within"),
        ({"evaluate_at": (0.0, 1.0)}, "evaluate_at: .* must rise within"),
        ({"noise_scale_at": (0.5, 0.5)}, "noise_scale_at: .* must be fractions of the budget that rise within"),
        ({"noise_scale_at": (1.0, 0.5)}, "noise_scale_at: .* must be fractions"),
        ({"noise_scale_at": (0.0, 1.5)}, "noise_scale_at: .* must be fractions"),
        ({"noise_scale_at": (-0.1,)}, "noise_scale_at: .* must be fractions"),
        ({"noise_scale_at": (float("nan"),)}, "noise_scale_at: .* must be fractions"),
        ({"noise_scale_at": 1.5}, "noise_scale_at: 1.5 must be fractions"),
        ({"sharpness_at": (1.0, 0.5)}, "sharpness_at: .* must be fractions of the budget that rise within"),
        ({"noise_scale_at": ("start",)}, "noise_scale_at: .*'start'.* must be fractions"),
        ({"microbatch_size": 0}, "microbatch_size: 0 is not a whole number of at least 1"),
        ({"devices_per_trial": 2.0}, "devices_per_trial: 2.0 is not a whole number of at least 1"),
        ({"compute_dtype": "float16"}, "compute_dtype: 'float16' is neither float32 nor bfloat16"),
        (
            {"devices_per_trial": 2},
            "batch_sizes: 1 is not a multiple of 2, so that 2 devices cannot share it in equal parts; leave it out",
        ),
    ],
)
def test_bad_fields_are_refused_in_a_sentence_that_names_field_and_value(changes, said):
    with pytest.raises(InputError, match=f"^{said}") as caught:
        study(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("workload", "batch_sizes", "said"),
    [
        ({"ghost_batch_size": 64}, (96,), "batch_sizes: 96 is not a multiple of the ghost batch size 64; .* lower the"),
        ({"reader": Streams(35, np.zeros)}, (64,), "batch_sizes: 64 tokens .* such as 70"),
        ({"reader": Streams(35, np.zeros)}, (10,), "batch_sizes: 10 tokens .* such as 35"),
    ],
)
def test_batch_sizes_that_split_ghost_batches_or_streams_are_refused(workload, batch_sizes, said):
    moved = replace(
        QUADRATIC, training_loss=lambda p, state, batch, keys: (QUADRATIC.loss(p, state, batch), state), **workload
    )
    with pytest.raises(InputError, match=f"^{said}"):
        study(workloads=moved, batch_sizes=batch_sizes)


@pytest.mark.parametrize(
    ("most", "ghost_batch_size", "devices", "resolved"),
    [
        (None, 4, 1, {64: 64, 96: 96, 128: 128}),
        (64, 4, 1, {64: 64, 96: 48, 128: 64}),
        (63, 16, 1, {64: 32, 96: 48, 128: 32}),
        (32, 16, 2, {64: 64, 96: 32, 128: 64}),  # so many for each device
        (64, 16, 2, {64: 64, 96: 96, 128: 128}),
        (4, 4, 1, {64: 4, 96: 4, 128: 4}),
    ],
)
def test_a_microbatch_is_the_largest_even_part_of_whole_ghost_batches(most, ghost_batch_size, devices, resolved):
    workload = replace(QUADRATIC, ghost_batch_size=ghost_batch_size)
    declared = study(
        workloads=workload, batch_sizes=(64, 96, 128), microbatch_size=most, devices_per_trial=devices
    ).declaration()
    assert declared.microbatch_sizes(declared.workloads[0]) == resolved
    assert declared.trial(SGD(), 96, 1.0, 0).microbatch_size == resolved[96]
    assert Declaration.from_json(declared.to_json()).microbatch_sizes(declared.workloads[0]) == resolved


@pytest.mark.parametrize(
    ("suits", "given", "ghost_batch_size", "devices", "resolved"),
    [
        (16, None, 1, 1, {8: 8, 24: 12, 64: 16, 256: 16}),
        (16, 64, 1, 1, {8: 8, 24: 24, 64: 64, 256: 64}),  # the study's own word counts
        (16, None, 8, 1, {8: 8, 24: 24, 64: 16, 256: 16}),
        (2, None, 8, 1, {8: 8, 24: 8, 64: 8, 256: 8}),  # never less than a ghost batch
        (16, None, 4, 2, {8: 8, 24: 24, 64: 32, 256: 32}),
        (None, None, 1, 1, {8: 8, 24: 24, 64: 64, 256: 256}),
    ],
)
def test_a_workload_says_which_microbatch_suits_a_cpu(suits, given, ghost_batch_size, devices, resolved):
    workload = replace(QUADRATIC, cpu_microbatch_size=suits, ghost_batch_size=ghost_batch_size)
    declared = study(
        workloads=workload, batch_sizes=tuple(resolved), microbatch_size=given, devices_per_trial=devices
    ).declaration()
    record = declared.workloads[0]
    assert declared.microbatch_sizes(record) == resolved
    assert {size: declared.trial(SGD(), size, 1.0, 0).microbatch_size for size in resolved} == resolved
    again = Declaration.from_json(declared.to_json())
    assert again == declared
    assert again.trial(SGD(), 64, 1.0, 0).id == declared.trial(SGD(), 64, 1.0, 0).id
    # What a folder has that was made on another device goes on with the size that it has, if that is given.
    elsewhere = replace(declared, workloads=[replace(record, microbatch_size=None)])
    there = elsewhere.microbatch_sizes(elsewhere.workloads[0])
    assert elsewhere.differences(declared) == [
        f"the microbatch size of batch size {size} (there {there[size]}, here {part})"
        for size, part in resolved.items()
        if part != there[size]
    ]
    assert replace(elsewhere, microbatch_size=256).differences(replace(declared, microbatch_size=256)) == []


def test_on_another_device_nothing_suits_but_the_whole_batch(monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    declared = study(workloads=replace(QUADRATIC, cpu_microbatch_size=2), batch_sizes=(8,)).declaration()
    assert declared.trial(SGD(), 8, 1.0, 0).microbatch_size == 8


def test_a_microbatch_that_holds_no_ghost_batch_is_refused():
    with pytest.raises(InputError, match=r"has no part of at most 8 examples .* a multiple of 16; raise it"):
        study(workloads=replace(QUADRATIC, ghost_batch_size=16), batch_sizes=(64,), microbatch_size=8)


def test_devices_that_cannot_take_whole_ghost_batches_are_refused():
    with pytest.raises(InputError, match=r"64 is not a multiple of 128, .* 8 devices .* parts, each a multiple of 16;"):
        study(workloads=replace(QUADRATIC, ghost_batch_size=16), batch_sizes=(64, 128), devices_per_trial=8)


def test_the_command_lines_fields_are_the_studys():
    assert {f.name for f in fields(Fields)} == {f.name for f in fields(Study)} - {"name", "workloads"}


def test_the_command_line_takes_several_budgets():
    command = tyro.cli(Fields, args=["--budgets", "steps:7", "epochs:1", "unlimited:1:4:0.5"])
    assert command.applied_to(study()).budgets == (Epochs(1), Steps(7), Unlimited(1, 4, 0.5))


def test_a_declaration_is_read_back():
    declaration = study(learning_rates=(0.1, 0.3), optimizers=(SGD(), SGD(momentum=0.5))).declaration()
    assert Declaration.from_json(declaration.to_json()) == declaration
    trial = declaration.trial(SGD(), 2, 0.1, 0)
    assert Declaration.from_json(declaration.to_json()).trial(SGD(), 2, 0.1, 0).id == trial.id


@pytest.mark.parametrize("name", ["noise_scale_at", "sharpness_at"])
def test_where_estimates_are_made_is_kept_and_changes_no_trial(name):
    plain, measured = study().declaration(), study(**{name: (0, 0.5, 1)}).declaration()
    assert getattr(Declaration.from_json(measured.to_json()), name) == (0.0, 0.5, 1.0)
    assert measured.trial(SGD(), 2, 0.1, 0).id == plain.trial(SGD(), 2, 0.1, 0).id
    before = json.loads(plain.to_json())
    before.pop(name, None)  # as a folder has it that was written before there was such a field
    assert Declaration.from_json(json.dumps(before)) == plain


def test_estimates_of_streams_are_refused():
    streams = replace(
        QUADRATIC, reader=Streams(1, np.zeros),
        training_loss=lambda p, state, batch, keys: (QUADRATIC.loss(p, state, batch), state),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"^noise_scale_at: workload 'quadratic' reads streams, .* leave it out\.$"):
        study(workloads=streams, noise_scale_at=(0.5,))
    with pytest.raises(InputError, match=r"^sharpness_at: workload 'quadratic' reads streams, .* leave it out\.$"):
        study(workloads=streams, sharpness_at=(0.5,))
    study(workloads=streams)


def test_a_single_value_is_as_good_as_several():
    single = study(workloads=QUADRATIC, budgets=Epochs(1), optimizers=SGD(), batch_sizes=2)
    several = study(workloads=[QUADRATIC], budgets=[Epochs(1)], optimizers=[SGD()], batch_sizes=[2])
    assert single.declaration() == several.declaration()


def test_numbers_of_numpy_and_jax_are_numbers():
    plain = {"batch_sizes": (8, 16, 32), "seeds": 3, "learning_rates": (0.5,), "evaluate_at": (1.0,)}
    numpy = {
        "batch_sizes": 2 ** np.arange(3, 6),
        "seeds": np.int64(3),
        "learning_rates": np.float32(0.5),
        "evaluate_at": np.array([1.0]),
    }
    jaxs = {"batch_sizes": list(jnp.array([8, 16, 32])), "seeds": jnp.int32(3), "learning_rates": 0.5, "evaluate_at": 1}
    optimizers = [SGD(0.5), SGD(np.float32(0.5)), SGD(np.array(0.5))]
    expected = study(**plain, optimizers=optimizers[0], budgets=Epochs(3)).declaration()
    for given, optimizer, n in zip((numpy, jaxs), optimizers[1:], (np.float64(3), np.array(3)), strict=True):
        found = study(**given, optimizers=optimizer, budgets=Epochs(n)).declaration()
        assert found.to_json() == expected.to_json()
    assert study(budgets=Steps(np.int32(7))).declaration() == study(budgets=Steps(7)).declaration()
    assert study(noise_scale_at=0.5).noise_scale_at == (0.5,)


def test_numbers_of_numpy_identify_a_workload_as_pythons_do():
    numpy = {"fields": {"width": np.int64(3)}, "constant_loss": np.float32(0.5), "ghost_batch_size": np.int8(2)}
    plain = {"fields": {"width": 3}, "constant_loss": 0.5, "ghost_batch_size": 2}
    assert replace(QUADRATIC, **numpy).record() == replace(QUADRATIC, **plain).record()


def test_a_study_and_a_workload_show_no_arrays_and_no_functions():
    for shown in (repr(study(workloads=digits())), repr(digits())):
        assert len(shown) < 600
        assert "array" not in shown
        assert "function" not in shown
        assert "digits" in shown


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda: SGD(momentum="0.9"), "optimizers: momentum: '0.9' is not a number"),
        (lambda: SGD(momentum=None), "optimizers: momentum: None is not a number"),
        (lambda: SGD(momentum=1 - 2**-26), "optimizers: momentum must be at least 0 and below 1"),
        (lambda: Epochs("3"), "budgets: epochs: '3' is not a number"),
        (lambda: Epochs(10**400), "budgets: epochs: a number of over 60 digits is too large"),
        (lambda: Steps("3"), "budgets: steps: '3' is not a whole number of at least 1"),
        (lambda: Unlimited("1", 4), "budgets: first of an unlimited budget: '1' is not a number"),
        (lambda: Unlimited(1e300, 1e308), r"budgets: 1e\+300 epochs of an unlimited budget are too many"),
        (lambda: Unlimited(2.0**-40, 2.0**10), "budgets: an unlimited budget .* doubles 50 times; use at most 20"),
    ],
)
def test_text_and_what_is_too_large_are_refused_where_numbers_are_meant(bad, said):
    with pytest.raises(InputError, match=f"^{said}"):
        bad()


def test_a_study_is_the_product_of_its_fields():
    other = replace(QUADRATIC, name="other")
    declared = study(workloads=(QUADRATIC, other), budgets=(Steps(7), Epochs(2), Epochs(0.5))).declaration()
    assert [str(budget) for budget in declared.budgets] == ["epochs:0.5", "epochs:2", "steps:7"]
    assert len(declared.cells) == len(set(declared.cells)) == 2 * 3 * 2 * 2
    assert Declaration.from_json(declared.to_json()) == declared
    saturation = study(budgets=(Unlimited(1, 4, 0.5), Epochs(2), Steps(3))).declaration()
    assert [str(budget) for budget in saturation.trial_budgets] == ["epochs:1", "epochs:2", "epochs:4", "steps:3"]
    assert Declaration.from_json(saturation.to_json()) == saturation
    trials = {
        declared.trial(SGD(), 2, 0.1, 0, record, budget).id
        for record in declared.workloads
        for budget in declared.budgets
    }
    alone = {
        study(workloads=workload, budgets=budget).declaration().trial(SGD(), 2, 0.1, 0).id
        for workload in (QUADRATIC, other)
        for budget in declared.budgets
    }
    assert trials == alone
    assert len(trials) == 6


# ── Identity ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_id_is_the_same_on_every_machine_and_in_every_process():
    trial = study().declaration().trial(SGD(), 2, 0.1, seed=3)
    assert trial.id == "0ed5e2d9d836fde8"


def test_all_that_changes_a_trials_numbers_changes_its_id():
    trial = study().declaration().trial(SGD(), 2, 0.1, seed=3)
    record = trial.workload
    others = [
        replace(trial, optimizer=SGD(momentum=0.9)),
        replace(trial, batch_size=1),
        replace(trial, learning_rate=np.nextafter(0.1, 1).item()),
        replace(trial, budget=Steps(7)),
        replace(trial, seed=4),
        replace(trial, workload=replace(record, name="other")),
        replace(trial, workload=replace(record, version="2")),
        replace(trial, workload=replace(record, data_sha256="0")),
        replace(trial, workload=replace(record, fields=(("noise", 2.0),))),
        replace(trial, workload=replace(record, ghost_batch_size=2)),
        replace(trial, workload=replace(record, unroll=2)),
        replace(trial, workload=replace(record, unroll=2, evaluation_batch_size=8)),
        replace(trial, microbatch_size=1),
        replace(trial, devices_per_trial=2),
        replace(trial, compute_dtype="bfloat16"),
    ]
    assert len({trial.id, *(other.id for other in others)}) == len(others) + 1


def test_what_changes_no_numbers_changes_no_id():
    def an_id(**changes):
        return study(**changes).declaration().trial(SGD(), 2, 0.1, seed=0).id

    ids = {an_id(), an_id(seeds=9), an_id(name="other"), an_id(batch_sizes=(2, 4)), an_id(learning_rates=(1.0,))}
    assert len(ids) == 1


def test_data_are_part_of_the_identity():
    changed = digits()
    pictures = changed.train["picture"].copy()
    pictures[0, 0] += 1
    other = replace(changed, train={**changed.train, "picture": pictures})
    assert changed.record().data_sha256 != other.record().data_sha256
    assert digits().record() == digits().record()


# ── Extension ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": 8},
        {"batch_sizes": (1, 2, 4)},
        {"optimizers": (SGD(), SGD(momentum=0.9), SGD(momentum=0.5))},
        {"budgets": (Epochs(1), Steps(7), Epochs(0.5))},
        {"budgets": (Unlimited(1, 4), Epochs(1))},
        {"workloads": (replace(QUADRATIC, name="other"), QUADRATIC)},
        {},
        {"microbatch_size": 2, "batch_sizes": (1, 2, 4)},  # what there is fits in it
    ],
)
def test_a_study_can_grow(changes):
    assert study().declaration().differences(study(**changes).declaration()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 4}, r"seeds \(there 5, here only 4\)"),
        ({"batch_sizes": (1,)}, r"batch_sizes \(there 1, 2, here 1\)"),
        ({"budgets": Epochs(2)}, r"budgets \(there epochs:1, here epochs:2\)"),
        ({"workloads": digits()}, r"workloads \(there quadratic, here digits\)"),
        ({"learning_rates": (0.1,)}, r"learning_rates \(there none, here 0.1\)"),
        ({"noise_scale_at": (0.5,)}, r"noise_scale_at \(there none, here 0.5\)"),
        ({"name": "t"}, r"name \(there s, here t\)"),
        ({"microbatch_size": 1}, r"the microbatch size of batch size 2 \(there 2, here 1\)"),
        ({"compute_dtype": "bfloat16"}, r"compute_dtype \(there float32, here bfloat16\)"),
        ({"devices_per_trial": 2, "batch_sizes": (2, 4)}, r"devices_per_trial \(there 1, here 2\)"),
        (
            {"workloads": NoisyQuadratic(noise=2.0).workload()},
            r"workload quadratic's fields \(there .*'noise', 1.0.*here",
        ),
        ({"workloads": NoisyQuadratic(examples=512).workload()}, r"workload quadratic's data_sha256 .*"),
    ],
)
def test_what_cannot_be_mixed_is_named(changes, said):
    import re

    differences = study().declaration().differences(study(**changes).declaration())
    assert any(re.match(said, difference) for difference in differences)


# ── Workloads ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {}}, "the train split has no arrays"),
        ({"train": {"x": np.zeros((0, 2))}}, r"train\['x'\] has shape \(0, 2\)"),
        ({"train": {"x": np.zeros((4, 2)), "y": np.zeros(3)}}, r"train\['y'\] has shape \(3,\)"),
        ({"test": {"z": np.zeros((4, 2))}}, r"the test split has \['z'\], the train split \['x'\]"),
        ({"test": {"x": np.zeros((4, 3))}}, r"test\['x'\] and train\['x'\] differ in the shape"),
        ({"validation": {"x": np.full((4, 2), np.nan)}}, r"validation\['x'\] holds values that are not finite"),
        ({"train": {"x": np.array(["a", "b"])}}, r"train\['x'\] holds <U1"),
        ({"constant_loss": -1.0}, "constant_loss -1.0 is not above 0"),
        ({"fields": {"w": [1, 2]}}, r"fields\['w'\] is \[1, 2\]; only numbers and text"),
        ({"constant_loss": float("nan")}, "constant_loss must be a finite number"),
        ({"score_goal": "up"}, "score_goal must be 'maximize' or 'minimize'"),
        ({"version": ""}, "workload: version must be a word"),
    ],
)
def test_bad_workloads_are_refused_in_a_sentence(changes, said):
    split = {"x": np.zeros((4, 2))}
    plain = {"name": "w", "version": "1", "train": split, "validation": split, "test": split, "init": lambda key: key}
    plain |= {"loss": lambda p, b: p, "score": lambda p, b: p, "constant_loss": 1.0, "constant_score": 0.0}
    with pytest.raises(InputError, match=said):
        Workload(**(plain | changes))


def test_constant_classifier_is_the_best_constant_predictor():
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    loss, accuracy = constant_classifier(labels)
    naive = -np.mean([np.log({0: 0.5, 1: 0.3, 2: 0.2}[label]) for label in labels.tolist()])
    assert loss == pytest.approx(naive)
    assert accuracy == 0.5


def test_numbers_of_numpy_are_numbers():
    plain = study(
        batch_sizes=(4, 8), seeds=2, learning_rates=(0.25, 0.5), noise_scale_at=(0.5,), budgets=(Epochs(2), Steps(3)),
        optimizers=SGD(momentum=0.5), microbatch_size=4, score_margin=0.25,
    )  # fmt: skip
    of_numpy = study(
        batch_sizes=2 ** np.arange(2, 4), seeds=np.int64(2), learning_rates=np.array([0.25, 0.5], np.float32),
        noise_scale_at=np.array([0.5]), budgets=(Epochs(np.float64(2)), Steps(np.int32(3))),
        optimizers=SGD(momentum=np.float32(0.5)), microbatch_size=np.int64(4), score_margin=np.float32(0.25),
    )  # fmt: skip
    assert of_numpy.declaration().to_json() == plain.declaration().to_json()
    assert study(batch_sizes=np.int64(4)).batch_sizes == (4,)
    with pytest.raises(InputError, match="seeds: True is not a whole number"):
        study(seeds=np.bool_(True))


def test_a_folder_grows_by_optimizers_and_by_values_of_a_searched_coefficient():
    few, more = AdamW(weight_decay=Values(0, 0.1)), AdamW(weight_decay=Values(0, 0.1, 0.2))
    of = lambda *optimizers: study(optimizers=optimizers).declaration()
    assert of(SGD(), few).united(of(more)).optimizers == (SGD(), more)
    assert of(more).united(of(few, SGD())).optimizers == (more, SGD())
    assert of(SGD()).united(of(SGD(momentum=Values(0, 0.9)))).optimizers == (SGD(), SGD(momentum=Values(0, 0.9)))
    assert of(few).beyond(of(more)) == {}
    assert of(SGD(), more).beyond(of(few)) == {"optimizers": "optimizers sgd, adamw:weight_decay=0|0.1|0.2"}


def test_an_optimizer_of_a_folder_is_the_users_own_which_alone_can_be_built():
    build = lambda rate: rate
    own = study(optimizers=(Optax("mine", build), SGD())).declaration()
    read = Declaration.from_json(own.to_json())
    assert read == own
    (mine,) = (each for each in read.united(own).optimizers if isinstance(each, Optax))
    assert mine.build is build
