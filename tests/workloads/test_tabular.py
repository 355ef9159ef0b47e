"""Tables as workloads: what is standardised, split and refused, and that a study of one runs to its end."""

import numpy as np
import polars as pl
import pytest

import sgdscope as sg
from sgdscope.errors import InputError
from sgdscope.workloads.tabular import classifier, from_csv, regressor


def table(n=200, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 7, size=(n, 4))
    return x, np.where(x[:, 0] + x[:, 1] > 6, "yes", "no")


def test_inputs_are_standardised_with_the_training_rows_alone():
    x, y = table()
    workload = classifier(x, y)
    np.testing.assert_allclose(workload.train["x"].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(workload.train["x"].std(axis=0), 1, atol=1e-5)
    assert abs(workload.test["x"].mean(axis=0)).max() > 1e-3


def test_every_row_is_in_one_split_and_the_shares_of_classes_are_kept():
    labels = np.repeat([0, 1, 2], [500, 80, 20])
    x = np.arange(600.0)[:, None]
    workload = classifier(x, labels)
    splits = [workload.split(name) for name in ("train", "validation", "test")]
    values = np.concatenate([split["x"][:, 0] for split in splits])
    assert len(np.unique(values)) == 600
    for split, share in zip(splits, (0.6, 0.2, 0.2), strict=True):
        np.testing.assert_array_equal(np.bincount(split["label"]), np.array([500, 80, 20]) * share)


@pytest.mark.parametrize("smallest", [1, 2, 3])
def test_a_rare_class_is_always_among_the_training_rows(smallest):
    labels = np.r_[np.zeros(50, int), np.ones(smallest, int)]
    assert set(classifier(np.arange(50.0 + smallest)[:, None], labels).train["label"]) == {0, 1}


def test_arrays_and_frames_of_either_library_are_the_same_workload():
    pd = pytest.importorskip("pandas")
    x, y = table()
    names = [f"x{index}" for index in range(4)]
    frames = (x, pl.DataFrame(x, schema=names), pd.DataFrame(x, columns=names))
    assert len({classifier(frame, y).record().data_sha256 for frame in frames}) == 1
    assert classifier(x, pd.Series(y)).record() == classifier(x, list(y)).record()


def test_a_column_of_words_is_one_input_for_each_word():
    frame = pl.DataFrame({"size": [1.0, 2.0, 3.0] * 10, "colour": ["red", "blue", "red"] * 10, "new": [True] * 30})
    workload = classifier(frame, [0, 1, 0] * 10)
    assert workload.train["x"].shape[1] == 4
    assert not workload.train["x"][:, 3].any()  # a constant column says nothing, and is no division by 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x[:-1], y), "x has 199 rows and y has 200"),
        (lambda x, y: (x[:, 0], y), r"x has shape \(200,\)"),
        (lambda x, y: (np.where(x > 20, np.nan, x), y), "missing values"),
        (lambda x, y: (np.where(x > 10, np.inf, x), y), "infinite"),
        (lambda x, y: (x, np.full(200, "yes")), "one class yes"),
        (lambda x, y: (x, [None, *y[1:]]), "Column 'y' has 1 missing"),
        (lambda x, y: (pl.DataFrame({"id": [f"row {i}" for i in range(200)]}), y), "'id' holds 200 different words"),
        (lambda x, y: (pl.DataFrame({"day": pl.Series([0] * 200).cast(pl.Date)}), y), "'day' holds Date"),
        (lambda x, y: (x[:2], ["a", "b"]), "2 rows leave no validation rows"),
    ],
)
def test_what_cannot_be_used_is_named(change, said):
    with pytest.raises(InputError, match=said):
        classifier(*change(*table()))


def test_the_score_of_a_regressor_is_the_error_in_the_unit_of_the_target():
    x, _ = table()
    y = 100 + 40 * (x[:, 0] - 3) / 7
    workload = regressor(x, y)
    train, test = (np.asarray(workload.split(name)["target"], float) for name in ("train", "test"))
    assert (np.mean(train), np.std(train)) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-5))
    # A network of zeros is the constant baseline.
    zeros = [{"weight": np.zeros((4, 1), np.float32), "bias": np.zeros(1, np.float32)}]
    score = workload.score_of_mean(workload.score(zeros, (), workload.test).mean())
    assert float(score) == pytest.approx(workload.constant_score * np.sqrt(np.mean(test**2)), rel=1e-5)
    with pytest.raises(InputError, match="y holds words"):
        regressor(x, ["many"] * 200)
    with pytest.raises(InputError, match="y is 5 in every training row"):
        regressor(x, np.full(200, 5.0))


@pytest.mark.parametrize(
    ("target", "kind"),
    [([0, 1] * 30, "accuracy"), (["a", "b"] * 30, "accuracy"), (list(range(60)), "root mean"), ([0.5, 1] * 30, "root")],
)
def test_a_csv_file_is_classified_or_predicted_by_what_its_target_holds(tmp_path, target, kind):
    path = tmp_path / "patients.csv"
    pl.DataFrame({"age": range(60), "outcome": target}).write_csv(path)
    workload = from_csv(path, "outcome")
    assert workload.name == "patients"
    assert workload.score_name.startswith(kind)
    with pytest.raises(InputError, match=r"no column 'result'\. Columns: age, outcome"):
        from_csv(path, "result")
    with pytest.raises(InputError, match="cannot be read"):
        from_csv(tmp_path / "no.csv", "outcome")


@pytest.mark.parametrize("make", [classifier, regressor])
def test_a_study_of_a_table_learns_more_than_the_constant_baseline(tmp_path, make):
    x, y = table()
    workload = make(x, y if make is classifier else x[:, 0], hidden=(8,))
    study = sg.Study(
        name="table", workloads=workload, batch_sizes=(8, 32), budgets=sg.Epochs(10), seeds=3, optimizers=sg.SGD()
    )
    best = sg.run(study, tmp_path / "table").optima.filter(criterion="score")["test_score"]
    better = workload.constant_score < best if make is classifier else best < workload.constant_score / 2
    assert better.all()
