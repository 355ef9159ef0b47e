"""Columns by other names: which are taken, which are asked about, and what the user says goes first."""

import pytest

import sgdscope as sg
from sgdscope.analysis.external_table import read_results, records_of
from sgdscope.cli import main
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
        ("param_bs,param_optimizer__lr,param_seed,mean_test_score", {"learning_rate": "param_optimizer__lr"}),
        ("param_bs,param_alpha,param_seed,mean_test_score", {}),
        ("config.train.bs.value,config.optim.lr.value,seed,acc", {"learning_rate": "config.optim.lr.value"}),
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
    ("right", "wrong", "ours"),
    [
        ("train.bs", "eval.batch_size", "batch_size"),
        ("train.bs", "data.batch_size", "batch_size"),
        ("config.trainer.batch_size", "config.val_dataloader.batch_size", "batch_size"),
        ("batch_size", "val.batch_size", "batch_size"),
        ("effective_batch_size", "batch_size", "batch_size"),
        ("optimizer.momentum", "norm.momentum", "momentum"),
        ("optimizer.momentum", "model.layer1.0.bn2.momentum", "momentum"),
        ("optim.sgd.momentum", "model.BatchNorm2d.momentum", "momentum"),
        ("optimizer.lr", "scheduler.step_size", "learning_rate"),
        ("optimizer.lr", "linear_probe.lr", "learning_rate"),
        ("config.lr", "dropout.rate", "learning_rate"),
        ("seed", "data.seed", "seed"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_parameters_of_evaluation_layers_data_and_schedules_are_not_those_of_training(
    tmp_path, right, wrong, ours, first
):
    needed = {"batch_size": ("bs", 8), "learning_rate": ("lr", 0.1), "seed": ("seed", 0), "momentum": ("mom", 0.9)}
    rest = [name for role, (name, _) in needed.items() if role not in (ours, "momentum")]
    heading = [right, wrong] if first else [wrong, right]
    lines = []
    for row in range(3):
        mine, theirs = (0.5, 0.1) if ours == "momentum" else (2**row, 2 * 3**row)
        values = [mine, theirs] if first else [theirs, mine]
        others = [2**row if name != "seed" else 0 for name in rest]
        lines.append(",".join(map(str, [*values, *others, 0.5 + row / 10])))
    results = read_results(table(tmp_path, ",".join([*heading, *rest, "acc"]), *lines))
    if ours == "momentum":
        assert set(results.trials["optimizer"]) == {"momentum:0.5"}
    else:
        assert results.trials[ours].to_list() == [1, 2, 4]


@pytest.mark.parametrize("wrong", ["eval.batch_size", "bn.batch_size", "test_loader.bs"])
def test_a_parameter_of_something_else_is_never_guessed(tmp_path, wrong):
    with pytest.raises(InputError, match=r"has no column 'batch_size'\. Its columns are"):
        read_results(table(tmp_path, f"{wrong},lr,seed,acc", "8,0.1,0,0.5", "16,0.1,0,0.5"))
    assert read_results(tmp_path / "runs.csv", {"batch_size": wrong}).trials["batch_size"].to_list() == [8, 16]


def test_a_learning_rate_in_percent_is_a_share(tmp_path):
    path = table(tmp_path, "bs,lr,momentum,seed,acc", "8,5%,90%,0,0.5", "16,10%,90%,0,0.5")
    trials = read_results(path).trials
    assert trials["learning_rate"].to_list() == [0.05, 0.1]
    assert set(trials["optimizer"]) == {"momentum:0.9"}


def test_runs_that_all_crashed_are_counted(tmp_path):
    path = table(tmp_path, "bs,lr,seed,acc,state", "8,0.1,0,,crashed", "8,0.2,0,,crashed")
    with pytest.raises(InputError, match=r"holds no trials with a result\. 2 of 2 rows are left out: 2 crashed\."):
        read_results(path)


def test_names_that_mean_something_else_in_most_places_are_not_offered(tmp_path):
    path = table(tmp_path, "bs,lr,seed,run,step_size,acc", "8,0.1,0,1,2,0.5", "8,0.2,0,1,3,0.6", "8,0.3,0,2,3,0.6")
    assert not any("may be meant" in notice for notice in read_results(path).notices)


def test_a_momentum_of_normalization_alone_is_no_momentum(tmp_path):
    path = table(tmp_path, "bs,lr,bn.momentum,seed,acc", "8,0.1,0.9,0,0.5", "16,0.1,0.9,0,0.5")
    assert set(read_results(path).trials["optimizer"]) == {"sgd"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("lr,base_lr,acc", "learning_rate is read from lr. base_lr may be meant as well: choose with --columns "),
        ("lr,test_acc,test_f1", "score is read from test_acc. test_f1 may be meant as well: choose with --columns "),
        (
            "learning_rate,optimizer.lr,acc",
            "learning_rate is read from the column of this name. optimizer.lr may be meant",
        ),
        ("lr,val_acc,val_loss", ""),
        ("lr,top1,top5", "score is read from top1."),
    ],
)
def test_what_was_taken_is_said_where_another_column_stands_level(tmp_path, names, said):
    notices = read_results(table(tmp_path, f"bs,seed,{names}", "8,0,0.1,0.2,0.3", "8,0,0.2,0.5,0.4")).notices
    assert [sentence.startswith(said) for sentence in notices] == ([True] if said else [])


@pytest.mark.parametrize(
    ("names", "score"),
    [("loss,val_acc", "val_acc"), ("config.loss,val_acc", "val_acc"), ("precision,val_loss", "val_loss")],
)
def test_a_column_of_words_or_of_parameters_and_one_that_never_varies_is_no_score(tmp_path, names, score):
    first = "mse" if names.startswith("loss") else "16"
    rows = (f"8,0.1,0,{first},0.6", f"8,0.2,0,{first},0.7")
    assert taken(table(tmp_path, f"bs,lr,seed,{names}", *rows))["score"] == score


@pytest.mark.parametrize(("other", "said"), [("acc_std", True), ("acc_max", False)])
def test_a_mean_over_runs_is_said(tmp_path, other, said):
    notices = read_results(
        table(tmp_path, f"bs,lr,seed,acc_mean,{other}", "8,0.1,0,0.5,0.1", "8,0.2,0,0.6,0.1")
    ).notices
    assert any("acc_mean may be a mean over runs, since acc_std stands beside it" in text for text in notices) == said


@pytest.mark.parametrize("name", ["torch.optim.SGD", "<class 'torch.optim.sgd.SGD'>", "SGD", "optax.sgd"])
def test_an_optimizer_may_be_named_by_its_class(tmp_path, name):
    path = table(tmp_path, "optimizer._target_,bs,lr,seed,acc", f"{name},8,0.1,0,0.5", "torch.optim.AdamW,8,0.1,0,0.4")
    assert read_results(path).trials["optimizer"].to_list() == ["sgd", "AdamW"]


def sweep(low, high, best=0.2):
    """Rows of a sweep whose scores lie between two values and are highest at the best learning rate."""
    for size in (8, 32, 128):
        for rate in (0.1, 0.2, 0.4):
            for seed in (0, 1, 2):
                yield f"{size},{rate},{seed},{(high if rate == best else low) + 0.01 * seed * (high - low)}"


@pytest.mark.parametrize(
    ("name", "low", "high", "goal"),
    [
        ("test_r2", -0.3, 0.4, "maximize"),
        ("psnr", 22.0, 31.0, "maximize"),
        ("val/ssim", 0.3, 0.8, "maximize"),
        ("auc", 0.6, 0.9, "maximize"),
        ("AUROC", 0.6, 0.9, "maximize"),
        ("bleu", 11.0, 31.0, "maximize"),
        ("mean_reward", -21.0, 35.0, "maximize"),
        ("log_likelihood", -90.0, -60.0, "maximize"),
        ("neg_mean_squared_error", -0.9, -0.2, "maximize"),
        ("mcc", -0.2, 0.4, "maximize"),
        ("perplexity", 60.0, 90.0, "minimize"),
        ("test_wer", 0.1, 0.9, "minimize"),
        ("rmse", 0.5, 40.0, "minimize"),
        ("mae", 0.05, 0.3, "minimize"),
        ("test_nll", -3.0, 2.0, "minimize"),
        ("mean_squared_error", 0.05, 0.3, "minimize"),
        ("bits_per_dim", 2.0, 3.0, "minimize"),
    ],
)
def test_the_direction_of_a_score_follows_from_its_name_and_no_score_but_an_accuracy_is_read_in_percent(
    tmp_path, name, low, high, goal
):
    results = read_results(table(tmp_path, f"bs,lr,seed,{name}", *sweep(low, high)))
    record = records_of(results)["results"]
    assert record.score_goal == goal
    assert "accuracy" not in record.score_name
    assert not record.in_percent
    assert set(results.trials["test_score"]) == {float(row.split(",")[3]) for row in sweep(low, high)}


@pytest.mark.parametrize(("high", "called"), [(0.9, "accuracy"), (90.0, "accuracy (%)")])
@pytest.mark.parametrize("name", ["test_acc", "score", "top1"])
def test_an_accuracy_is_read_as_one(tmp_path, high, called, name):
    path = table(tmp_path, f"bs,lr,seed,{name}", *sweep(high / 2, high))
    assert records_of(read_results(path))["results"].score_name == called


def test_where_no_name_says_the_direction_the_user_does(tmp_path):
    path = table(tmp_path, "bs,lr,seed,score", *sweep(-40.0, 1.0))
    results = read_results(path)
    with pytest.raises(InputError, match=r"no accuracies\. Give --minimize or --maximize"):
        records_of(results)
    for minimize, goal, best in ((False, "maximize", 0.2), (True, "minimize", 0.1)):
        assert records_of(results, minimize)["results"].score_goal == goal
        found = sg.load_table(path, minimize=minimize, score_margin=1.0)
        assert best in found.optima.filter(criterion="score")["learning_rate"]


def test_what_the_user_says_of_the_direction_goes_before_the_name(tmp_path):
    path = table(tmp_path, "bs,lr,seed,val_loss", *sweep(0.2, 0.9))
    assert sg.load_table(path, minimize=False).tables.record.score_goal == "maximize"


def test_both_directions_are_refused(tmp_path, capsys):
    path = table(tmp_path, "bs,lr,seed,score", *sweep(0.2, 0.9))
    assert main(["analyze", str(path), "--minimize", "--maximize"]) == 2
    assert "--minimize: --maximize is given as well. Give one of them." in capsys.readouterr().err


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
