"""What real tools wrote is read as what was planted; their own tables of it are the oracle."""

import importlib.util
import json
import math
import re
import shutil
import sqlite3
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import sgdscope as sg
from sgdscope.analysis.external_table import read_results, records_of
from sgdscope.cli import main
from sgdscope.errors import InputError
from sgdscope.importing.sources import read_source

FILES = Path(__file__).parent / "files"
SIZES, RATES, SEEDS, BEST = (8, 32), (0.1, 0.2, 0.4), (0, 1), {8: 0.1, 32: 0.2}
needs_tensorboard = pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")


def planted(more=0.0):
    """The scores of the sweep by batch size, learning rate and seed."""
    return {
        (size, rate, seed): pytest.approx(
            round(0.95 - 0.01 * math.log2(rate / BEST[size]) ** 2 + 0.001 * seed, 4) + more
        )
        for size in SIZES
        for rate in RATES
        for seed in SEEDS
    }


def scores(results):
    columns = ("batch_size", "learning_rate", "seed", "test_score")
    return {(size, rate, seed): score for size, rate, seed, score in results.trials.select(columns).rows()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files with their archives unpacked."""
    folder = tmp_path_factory.mktemp("made")
    for path in FILES.iterdir():
        if path.suffix == ".zip":
            shutil.unpack_archive(path, folder)
        elif path.suffix in (".csv", ".parquet", ".json", ".jsonl"):
            shutil.copy(path, folder)
    return folder


TABLES = [
    *("pandas.csv", "pandas-german.csv", "pandas.parquet", "pandas.jsonl", "pandas-records.json"),
    *("pandas-columns.json", "nested.jsonl", "wandb-api.csv"),
]
STORES = ["optuna.db", "optuna.log", "mlflow.db", "mlruns"]
LEFT_OUT = {
    "optuna": "3 of 15 {} are left out: 1 pruned, 1 fail and 1 running.",
    "mlflow": "2 of 14 {} are left out: 1 failed and 1 running.",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_each_tool_is_read_with_its_own_columns(made, name):
    results = read_results(made / name)
    assert scores(results) == planted()
    assert results.notices == ()
    assert results.taken.startswith("Read 12 of 12 r")
    assert "learning_rate=config.lr" in results.taken


@pytest.mark.parametrize("name", STORES)
def test_a_store_is_read_with_what_is_left_out(made, name):
    results = read_results(made / name)
    assert scores(results) == planted()
    assert results.notices == (LEFT_OUT["optuna" if "optuna" in name else "mlflow"].format("runs"),)
    assert "Scores are the last values along training." in results.taken


@pytest.mark.parametrize(
    ("store", "table"),
    [
        ("optuna.db", "optuna-sqlite.csv"),
        ("optuna.log", "optuna-journal.csv"),
        ("mlflow.db", "mlflow-sqlite.csv"),
        ("mlruns", "mlflow-folder.csv"),
    ],
)
def test_a_store_gives_what_its_tools_own_table_of_it_gives(made, store, table):
    mine, theirs = read_results(made / store), read_results(made / table)
    order = ["batch_size", "learning_rate", "seed"]
    assert_frame_equal(mine.trials.sort(order), theirs.trials.sort(order))
    assert theirs.notices[0].startswith("3 of 15" if "optuna" in store else "2 of 14")


@needs_tensorboard
@pytest.mark.parametrize("name", ["tensorboard", "tensorboard-names"])
def test_event_files_are_runs_by_hparams_or_by_name(made, name):
    results = read_results(made / name)
    assert scores(results) == planted(0.0 if name == "tensorboard" else -0.01)  # which validation lies below training
    assert ("seed=hparams.seed" if name == "tensorboard" else "seed=name.seed") in results.taken


def test_a_multirun_of_hydra_is_read_and_jobs_that_failed_are_counted(made):
    results = read_results(made / "multirun")
    assert scores(results) == planted()
    assert results.notices == ("4 of 16 runs are left out: 4 without a score.",)
    assert "learning_rate=config.optimizer.lr" in results.taken


@pytest.mark.parametrize("name", [*STORES, "multirun", pytest.param("tensorboard", marks=needs_tensorboard)])
def test_the_best_value_along_training_is_taken_where_it_is_declared(made, name):
    results = read_results(made / name, value="best")
    assert scores(results) == planted(0.01)
    assert "Scores are the best values along training. The best of many values is too good" in results.taken


def hydra_run(folder, number, config, metrics):
    run = folder / "multirun" / str(number)
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "config.yaml").write_text(config)
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in metrics))


def test_there_is_no_best_of_one_value_or_of_a_metric_of_unknown_goal(made, tmp_path):
    with pytest.raises(InputError, match=r"holds one value of metrics\.val_acc for each run"):
        read_results(made / "pandas.csv", value="best")
    hydra_run(tmp_path, 0, "{bs: 8, lr: 0.1, seed: 0}", [{"quality": 1.0}, {"quality": 2.0}])
    chosen = {"score": "metrics.quality"}
    assert read_results(tmp_path / "multirun", chosen).trials["test_score"].to_list() == [2.0]
    with pytest.raises(InputError, match=r"'metrics\.quality' does not say whether larger values are better"):
        read_results(tmp_path / "multirun", chosen, value="best")


def test_the_best_of_losses_is_the_smallest_finite_one(tmp_path):
    losses = [{"val_loss": loss} for loss in (3.0, 1.0, math.nan, 2.0)]
    hydra_run(tmp_path, 0, "{bs: 8, lr: 0.1, seed: 0}", losses)
    assert read_results(tmp_path / "multirun", value="best").trials["test_score"].to_list() == [1.0]
    last = read_results(tmp_path / "multirun")
    assert last.trials["test_score"].to_list() == [2.0]
    assert records_of(last)["results"].score_goal == "minimize"


def test_references_in_a_configuration_are_resolved_and_the_choice_of_a_group_names_the_optimizer(tmp_path):
    for number, (name, size, rate) in enumerate(
        (name, size, rate) for name in ("sgd", "adam") for size in (8, 32) for rate in (0.1, 0.2)
    ):
        config = f"""
        train: {{bs: {size}}}
        data: {{batch_size: "${{train.bs}}"}}
        eval: {{batch_size: 1000}}
        optimizer: {{_target_: torch.optim.{name.upper()}, lr: {rate}}}
        seed: 0
        """
        hydra_run(tmp_path, number, config, [{"test": {"r2": rate}}])
        said = [f"train.bs={size}", f"+optimizer={name}", f"optimizer.lr={rate}", "~callbacks"]
        (tmp_path / "multirun" / str(number) / ".hydra" / "overrides.yaml").write_text(json.dumps(said))
    results = read_results(tmp_path / "multirun")
    assert results.notices == ()
    assert "batch_size=config.train.bs, learning_rate=config.optimizer.lr" in results.taken
    assert "optimizer=overrides.optimizer" in results.taken
    assert set(results.trials["optimizer"]) == {"sgd", "adam"}
    assert set(results.trials["batch_size"]) == {8, 32}


def test_a_batch_size_that_refers_to_another_value_is_the_batch_size_where_it_is_the_only_one(tmp_path):
    for number, size in enumerate((8, 32)):
        hydra_run(tmp_path, number, f'{{lr: 0.1, n: {size}, data: {{batch_size: "${{n}}"}}}}', [{"acc": 0.5}])
    assert read_results(tmp_path / "multirun").trials["batch_size"].to_list() == [8, 32]


def test_a_rate_that_only_hydra_can_compute_is_said(tmp_path):
    for number, rate in enumerate((0.1, 0.2)):
        hydra_run(tmp_path, number, f'{{bs: 8, base_lr: {rate}, lr: "${{eval:2*${{base_lr}}}}"}}', [{"acc": rate}])
    results = read_results(tmp_path / "multirun")
    assert results.notices[0].startswith("learning_rate is read from config.base_lr. config.lr may be meant as well")


def test_runs_of_hydra_without_results_say_what_to_write(tmp_path):
    hydra_run(tmp_path, 0, "{bs: 8, lr: 0.1}", [])
    with pytest.raises(InputError, match="Each run must write its metrics into its output folder"):
        read_results(tmp_path / "multirun")


def test_runs_that_mlflow_deleted_and_parents_of_runs_do_not_count(made, tmp_path):
    path = shutil.copy(made / "mlflow.db", tmp_path)
    with sqlite3.connect(path) as connection:
        gone, parent = (
            row[0] for row in connection.execute("select run_uuid from runs where status = 'FINISHED' limit 2")
        )
        connection.execute("update runs set lifecycle_stage = 'deleted' where run_uuid = ?", [gone])
        connection.execute("delete from params where run_uuid = ?", [parent])
    connection.close()
    results = read_results(path)
    assert len(results.trials) == 10
    assert results.notices == ("4 of 14 runs are left out: 1 deleted, 1 failed, 1 running and 1 without a batch size.",)


def test_experiments_and_studies_are_workloads_where_there_are_several(made, tmp_path):
    path = shutil.copy(made / "optuna.db", tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("insert into studies values (2, 'other')")
        connection.execute("update trials set study_id = 2 where trial_id > 6")
    connection.close()
    assert set(read_results(path).trials["workload"]) == {"sweep", "other"}
    assert set(read_results(made / "optuna.db").trials["workload"]) == {"results"}


def test_the_direction_of_a_study_of_optuna_is_that_of_its_scores(made, tmp_path):
    path = shutil.copy(made / "optuna.log", tmp_path)
    Path(path).write_text(
        Path(path).read_text().replace('"directions":[2]', '"directions":[1]') + '{"op_code": 4, "stu'
    )
    assert records_of(read_results(path))["results"].score_goal == "minimize"
    assert records_of(read_results(made / "optuna.log"))["results"].score_goal == "maximize"


def test_stores_are_read_without_being_written(made, tmp_path):
    for name in ("optuna.db", "mlflow.db", "optuna.log"):
        path = Path(shutil.copy(made / name, tmp_path))
        before = path.read_bytes()
        path.chmod(0o444)
        read_results(path)
        assert path.read_bytes() == before
        assert sorted(other.name for other in tmp_path.iterdir() if other.name.startswith(name)) == [name]


def sqlite_file(path):
    with sqlite3.connect(path) as connection:
        connection.execute("create table patients (id)")
    connection.close()


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (sqlite_file, "is an SQLite file, but neither a storage of Optuna nor a database of MLflow"),
        (lambda path: path.mkdir(), "holds no runs: neither a multirun of Hydra"),
        (lambda path: path.write_text("hello"), "must end in .csv or .parquet"),
        (lambda path: path.write_text('{"op_code": 8, "trial_id": 4}'), "is not as Optuna writes it"),
    ],
)
def test_what_is_none_of_these_is_refused_in_a_sentence(tmp_path, write, said):
    write(tmp_path / "thing")
    with pytest.raises(InputError, match=said):
        read_source(tmp_path / "thing")


def test_a_workbook_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "runs.xlsx").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match=r"is a workbook\. Save its sheet as \.csv"):
        read_source(tmp_path / "runs.xlsx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"bs": 1}\n{"bs"\n', "line 2 is not JSON"),
        ('{"bs": 1}\n[1]\n', "line 2 is not an object"),
        ("[1, 2]", "holds no runs. Write an object for each run"),
        ('{"bs": [1, 2], "lr": [1]}', "its columns have different rows"),
        ("[]", "has no column"),
    ],
)
def test_json_that_holds_no_runs_is_refused_in_a_sentence(tmp_path, text, said):
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_results(tmp_path / "runs.json")


def test_a_damaged_database_is_refused_in_a_sentence(made, tmp_path):
    (tmp_path / "cut.db").write_bytes((made / "optuna.db").read_bytes()[:5000])
    with pytest.raises(InputError, match="cannot be read as a table: database disk image is malformed"):
        read_results(tmp_path / "cut.db")


def test_the_folder_of_a_study_is_not_analyzed(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(InputError, match=r"is the folder of a study\. Use `sgdscope show"):
        sg.load_table(tmp_path)


def test_analyze_says_what_it_took_and_writes_report_figures_and_advice(made, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["analyze", str(made / "mlruns"), "--score-margin", "0.004", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Read 12 of 14 runs of ")
    assert "2 of 14 runs are left out: 1 failed and 1 running." in said
    assert {"curves.csv", "optima.csv", "recommended.csv", "costs.csv", "report.html"} <= set(map(str, names(out)))
    assert (out / "figures" / "best-score.svg").is_file()
    assert "<h1>mlruns</h1>" in (out / "report.html").read_text()
    said = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", (out / "report.html").read_text(), flags=re.DOTALL)
    assert re.search(r"Workload\s+results\s+Optimizers", said)  # how many examples there were is not known of a table
    assert not re.search(r"\b0 (\+|updates|s of training)|· budget ·|Device|Cost", said)
    assert "sg.run(" not in (out / "report.html").read_text()  # nothing here can be run
    assert pl.read_csv(out / "recommended.csv")["batch_size"].len() == 1


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["bs"], "--columns: 'bs' names no column. Write our name and yours, such as batch_size=bs."),
        (["batchsize=config.bs"], "--columns: 'batchsize' is not read. Use one of batch_size,"),
        (["score=config.acc"], "has no column 'config.acc'."),
        (["score=metrics.val_ac"], "Did you mean metrics.val_acc?"),
    ],
)
def test_columns_that_do_not_exist_are_named(made, capsys, columns, said):
    assert main(["analyze", str(made / "pandas.csv"), "--columns", *columns]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "meant"), [("optimiser", "optimizer"), ("wrkload", "workload"), ("comment", None)])
def test_a_column_whose_name_is_misspelt_is_named(tmp_path, name, meant):
    lines = [f"{size},{rate},{seed},a,0.9" for size in (8, 32) for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
    (tmp_path / "runs.csv").write_text("\n".join([f"batch_size,learning_rate,seed,{name},score", *lines]))
    said = [notice for notice in sg.load_table(tmp_path / "runs.csv").notices if "is not used" in notice]
    assert len(said) == (meant is not None)
    assert all(f"Did you mean {meant}?" in notice for notice in said)


def test_a_batch_size_of_one_device_is_not_taken_for_that_of_an_update(tmp_path):
    def written(name, parts, more=""):
        heading = f"{name},learning_rate,seed,{parts},score{more and ',effective_batch_size'}"
        lines = [f"8,{rate},{seed},4,0.9{more}" for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
        (tmp_path / "runs.csv").write_text("\n".join([heading, *lines]))
        return tmp_path / "runs.csv"

    for name in ("per_device_train_batch_size", "batch_size"):
        with pytest.raises(
            sg.InputError, match=f"{name} is not the whole batch .*gradient_accumulation_steps is not 1"
        ):
            sg.load_table(written(name, "gradient_accumulation_steps"))
    found = sg.load_table(written("per_device_train_batch_size", "gradient_accumulation_steps", ",32"))
    assert found.trials["batch_size"].unique().to_list() == [32]


def test_runs_that_say_that_they_diverged_have_diverged(tmp_path):
    lines = [f"8,{rate},{seed},{rate > 0.3},0.5" for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
    (tmp_path / "runs.csv").write_text("\n".join(["batch_size,learning_rate,seed,diverged,score", *lines]))
    found = sg.load_table(tmp_path / "runs.csv", constant_score=0.1)
    assert found.trials.filter(status="diverged")["learning_rate"].unique().to_list() == [0.4]


def test_a_score_that_is_named_an_error_is_minimized(tmp_path):
    lines = [f"8,{rate},{seed},{0.1 + abs(rate - 0.2)}" for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
    (tmp_path / "runs.csv").write_text("\n".join(["batch_size,learning_rate,seed,top1_err", *lines]))
    found = sg.load_table(tmp_path / "runs.csv", columns={"score": "top1_err"})
    assert found.tables.record.score_goal == "minimize"
    assert found.optima.filter(criterion="score")["learning_rate"].item() == 0.2
