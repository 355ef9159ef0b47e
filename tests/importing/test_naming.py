"""Columns by other names: which are taken, which are asked about, and what the user says goes first."""

import pytest

from sgdscope.analysis.external_table import read_results, records_of
from sgdscope.errors import InputError
from sgdscope.importing.naming import goal_of, metric, plain


def table(tmp_path, heading, *rows):
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([heading, *rows]) + "\n")
    return path


def taken(path, **options):
    """The columns that were taken, by our names."""
    said = read_results(path, **options).taken.partition(": ")[2].partition(". Change")[0]
    return dict(pair.split("=") if "=" in pair else (pair, pair) for pair in said.split(", "))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("bs,lr,seed,val_acc", {"batch_size": "bs", "learning_rate": "lr", "seed": "seed", "score": "val_acc"}),
        ("Batch Size,Learning Rate,SEED,Accuracy", {"batch_size": "Batch Size", "score": "Accuracy"}),
        ("batchSize,learningRate,randomSeed,testAcc", {"batch_size": "batchSize", "score": "testAcc"}),
        ("params_batch_size,params_lr,user_attrs_seed,value", {"learning_rate": "params_lr", "score": "value"}),
        ("config/bs,config/optim.lr,config/seed,eval/top1", {"learning_rate": "config/optim.lr"}),
        ("param_bs,param_optimizer__lr,param_seed,mean_test_score", {}),
        ("train_bs,base_lr,repeat,best_val_acc", {"seed": "repeat", "score": "best_val_acc"}),
    ],
)
def test_names_that_people_and_tools_use_are_taken(tmp_path, theirs, ours):
    path = table(tmp_path, theirs, "8,0.1,0,0.9", "8,0.1,1,0.91", "8,0.2,0,0.8", "8,0.2,1,0.81")
    if not ours:
        with pytest.raises(InputError, match="has no column 'learning_rate'"):
            read_results(path)
        return
    assert ours.items() <= taken(path).items()


@pytest.mark.parametrize(
    ("names", "score", "validation"),
    [
        ("val_acc,test_acc", "test_acc", "val_acc"),
        ("test_loss,val_acc", "val_acc", None),
        ("val_loss,val_acc", "val_acc", None),
        ("train_acc,val_loss", "val_loss", None),
        ("best_val_acc,val_acc", "val_acc", None),
        ("f1,acc", "acc", None),
        ("value,acc", "value", None),
        ("val/f1,test/f1", "test/f1", "val/f1"),
    ],
)
def test_of_several_metrics_the_score_is_that_of_a_test_set_and_an_accuracy_before_a_loss(
    tmp_path, names, score, validation
):
    found = taken(table(tmp_path, f"bs,lr,seed,{names}", "8,0.1,0,0.6,0.7", "8,0.1,1,0.6,0.8", "8,.2,0,0.6,0.8"))
    assert (found["score"], found.get("validation_score")) == (score, validation)


def test_a_loss_is_minimized_by_its_name_and_an_accuracy_is_not(tmp_path):
    rows = ("8,0.1,0,2.5", "8,0.1,1,2.6", "8,0.2,0,2.4")
    assert records_of(read_results(table(tmp_path, "bs,lr,seed,val_loss", *rows)))["results"].score_goal == "minimize"
    rows = ("8,0.1,0,0.5", "8,0.1,1,0.6", "8,0.2,0,0.4")
    assert records_of(read_results(table(tmp_path, "bs,lr,seed,val_acc", *rows)))["results"].score_goal == "maximize"


def test_what_the_user_says_goes_before_names_that_are_ours(tmp_path):
    path = table(tmp_path, "batch_size,real_bs,lr,seed,score", "1,8,0.1,0,0.5", "1,16,0.1,0,0.6")
    results = read_results(path, {"batch_size": "real_bs"})
    assert results.trials["batch_size"].to_list() == [8, 16]


def test_of_two_columns_that_may_be_meant_the_one_that_varies_is_taken_or_one_is_asked_for(tmp_path):
    rows = ("8,0.1,0.5,0,0.5", "8,0.2,0.5,0,0.6")
    assert taken(table(tmp_path, "bs,a.lr,b.lr,seed,acc", *rows))["learning_rate"] == "a.lr"
    rows = ("8,0.1,0.5,0,0.5", "8,0.2,0.7,0,0.6")
    path = table(tmp_path, "bs,a.lr,b.lr,seed,acc", *rows)
    with pytest.raises(InputError, match=r"a\.lr or b\.lr may be learning_rate\. .* --columns learning_rate=a\.lr"):
        read_results(path)
    assert read_results(path, {"learning_rate": "b.lr"}).trials["learning_rate"].to_list() == [0.5, 0.7]


def test_the_last_learning_rate_that_was_logged_is_not_the_initial_one(tmp_path):
    path = table(tmp_path, "config.bs,metrics.lr,config.lr,seed,acc", "8,0,0.1,0,0.5", "8,0,0.2,0,0.6")
    assert taken(path)["learning_rate"] == "config.lr"


def test_sgd_with_momentum_is_momentum(tmp_path):
    rows = ("SGD,0.9,8,0.1,0,0.5", "SGD,0,8,0.1,0,0.6", "Adam,0.9,8,0.1,0,0.7")
    results = read_results(table(tmp_path, "optim,momentum,bs,lr,seed,acc", *rows))
    assert results.trials["optimizer"].to_list() == ["momentum:0.9", "sgd", "Adam"]
    assert results.trials["effective_learning_rate"].to_list() == pytest.approx([1.0, 0.1, 0.1])


def test_runs_without_a_seed_are_numbered_and_repeated_rows_are_not(tmp_path):
    rows = ("a,8,0.1,0.5", "b,8,0.1,0.5", "c,8,0.2,0.6", "c,8,0.2,0.6")
    results = read_results(table(tmp_path, "id,bs,lr,acc", *rows))
    assert results.trials.select("learning_rate", "seed").rows() == [(0.1, 0), (0.1, 1), (0.2, 0)]
    assert results.notices[0].startswith("No column is a seed.")
    assert results.notices[1] == "1 row repeats another row and is left out."


def test_a_number_of_each_run_is_no_seed(tmp_path):
    rows = ("0,8,0.1,0.5", "1,8,0.1,0.5", "2,8,0.2,0.6")
    assert "seed" not in taken(table(tmp_path, "trial,bs,lr,acc", *rows))
    rows = ("0,8,0.1,0.5", "1,8,0.1,0.5", "0,8,0.2,0.6")
    assert taken(table(tmp_path, "trial,bs,lr,acc", *rows))["seed"] == "trial"


def test_names_of_runs_say_their_parameters_where_no_column_does(tmp_path):
    names = [f"{first}bs={size}{by}lr={rate}{by}seed=0" for size, rate, first, by in (
        (8, "0.1", "", ";"), (16, "1e-3", "", ";"))]  # fmt: skip
    results = read_results(table(tmp_path, "Name,val_acc", *(f"{name},0.5" for name in names)))
    assert results.trials.select("batch_size", "learning_rate").rows() == [(8, 0.1), (16, 0.001)]


@pytest.mark.parametrize("by", ["_", "-", ";", " "])
def test_pairs_in_names_may_be_separated_in_many_ways(tmp_path, by):
    rows = [f"bs=8{by}lr={rate}{by}seed=1,0.5" for rate in ("0.1", "1e-3")]
    assert read_results(table(tmp_path, "run,acc", *rows)).trials["learning_rate"].to_list() == [0.1, 0.001]


def test_dictionaries_in_cells_are_columns_also_where_they_hold_nan(tmp_path):
    row = "\"{'lr': {}, 'bs': 8, 'seed': 0}\",\"{'val_loss': nan, 'val_acc': 0.5}\""
    path = table(tmp_path, "config,summary", *(row.replace("{}", rate) for rate in ("0.1", "0.2")))
    assert read_results(path).trials["learning_rate"].to_list() == [0.1, 0.2]


def test_rows_that_differ_in_a_column_that_is_not_read_are_told_by_it(tmp_path):
    rows = [f"8,0.1,{seed},{decay},{0.5 + decay}" for seed in range(4) for decay in (0.0, 0.1)]
    path = table(tmp_path, "bs,lr,seed,weight_decay,acc", *rows)
    with pytest.raises(InputError, match=r"If they differ in weight_decay, give --columns workload=weight_decay"):
        read_results(path)
    assert set(read_results(path, {"workload": "weight_decay"}).trials["workload"]) == {"0.0", "0.1"}


@pytest.mark.parametrize(
    ("name", "ours"),
    [("params.lr", "lr"), ("config.optimizer.lr", "optimizer_lr"), ("LR", "lr"), ("user_attrs_rngSeed", "rng_seed")],
)
def test_a_plain_name(name, ours):
    assert plain(name) == ours


@pytest.mark.parametrize(
    ("name", "its"),
    [
        ("epoch_accuracy", ("accuracy", "", False)),
        ("validation/epoch_accuracy", ("accuracy", "validation", False)),
        ("max_val_acc", ("acc", "validation", True)),
        ("train_loss", ("loss", "train", False)),
    ],
)
def test_what_a_name_says_of_a_metric(name, its):
    assert metric(name) == its


@pytest.mark.parametrize(("name", "goal"), [("wer", "minimize"), ("Top-1", "maximize"), ("quality", "")])
def test_the_goal_follows_from_the_name(name, goal):
    assert goal_of(name) == goal
