import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import polars as pl
import pytest

import sgdscope as sg
from sgdscope.cli import main

COLUMNS = {"trial_id", "workload", "optimizer", "batch_size", "learning_rate", "effective_learning_rate", "budget"}
COLUMNS |= {"seed", "status", "steps", "examples", "train_loss", "validation_score", "test_score", "diverged_at_step"}
COLUMNS |= {"seconds"}
FAST = ("--batch-sizes", "256", "512", "--learning-rates", "0.125", "0.5", "--seeds", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "study"
    assert main(["run", "digits", "--out", str(folder), "--budgets", "epochs:1", *FAST]) == 0
    return folder


def test_fields_in_any_order_table_and_page(command, study_file, tmp_path):
    done = command("run", *FAST, "--out", tmp_path / "s", study_file, "--verbose", "--optimizers", "sgd")
    assert done.returncode == 0, done.stderr
    assert "compiled batch size 256, 64 slots: traced in" in done.stdout
    assert "test score" in done.stdout
    assert "2 batch sizes are too few to find where it stops growing" in done.stdout
    assert (tmp_path / "s" / "report.html").stat().st_size < 2e6
    assert "left" in done.stderr  # plain lines of progress in a pipe


def test_status_report_and_export(folder, tmp_path, capsys):
    assert main(["status", str(folder)]) == 0
    assert "16 complete; 0 pending" in capsys.readouterr().out
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").exists()
    capsys.readouterr()
    assert main(["report", str(folder), "--format", "svg", "--out", str(tmp_path / "figures")]) == 0
    written = capsys.readouterr().out.split()
    assert str(tmp_path / "figures" / "best-score.svg") in written
    for name, read in (("t.csv", pl.read_csv), ("t.parquet", pl.read_parquet)):
        assert main(["export", str(folder), str(tmp_path / name)]) == 0
        table = read(tmp_path / name)
        assert set(table.columns) >= COLUMNS
        assert len(table) == 16


def test_claims_of_several_folders_as_text_and_json(folder, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["run", "digits", "--out", str(other), "--budgets", "steps:3", *FAST]) == 0
    capsys.readouterr()
    assert main(["claims", str(folder), str(other)]) == 0
    text = capsys.readouterr().out
    assert "Do large batch sizes generalize poorly?" in text
    assert "2 batch sizes of 3 needed have a score" in text
    assert main(["claims", str(folder), "--json", "--reference", "0.9"]) == 0
    by_claim = {of["claim"]: of for of in json.loads(capsys.readouterr().out)}
    assert by_claim["C0"]["verdict"] in ("supported", "contradicted", "inconclusive")
    assert by_claim["C8"]["verdict"] == "not tested"
    result = sg.Result(folder)
    assert result.claims["claim"].unique(maintain_order=True).to_list() == list(by_claim)


def test_claims_of_folders_that_do_not_go_together_are_refused(folder, study_file, tmp_path, capsys):
    assert main(["claims"]) == 2
    assert "name at least one folder" in capsys.readouterr().err
    narrow = tmp_path / "narrow"
    assert main(["run", str(study_file), "--out", str(narrow), *FAST]) == 0
    assert main(["claims", str(folder), str(narrow)]) == 2
    assert "its workload 'digits' differs from that of another folder" in capsys.readouterr().err
    declared = shutil.copytree(folder, tmp_path / "declared") / "study.json"
    declared.write_text(declared.read_text().replace('"score_margin": null', '"score_margin": 0.25'))
    assert main(["claims", str(declared.parent), str(folder)]) == 2
    assert "its score_margin is None, that of" in capsys.readouterr().err


def test_anybodys_table_is_analyzed_and_a_studys_own_as_it_was(folder, tmp_path, capsys):
    table = tmp_path / "mine.csv"
    rows = [(size, rate, seed) for size in (8, 32) for rate in (0.1, 0.2, 0.4) for seed in (0, 1)]
    lines = [f"{size},{rate},{seed},{90 + size / 8 + seed - abs(rate - 0.2)}" for size, rate, seed in rows]
    table.write_text("\n".join(["batch_size,learning_rate,seed,score", *lines]))
    assert main(["analyze", str(table), "--out", str(tmp_path / "tables")]) == 0
    said = capsys.readouterr().out
    assert "94.500" in said  # the mean of 94 and 95 at batch size 32
    assert "sgd: test score is shown to hold up to batch size" in said
    thresholds = pl.read_csv(tmp_path / "tables" / "thresholds.csv")
    assert thresholds.row(0, named=True)["margin"] == pytest.approx(0.05 * 91.5)
    exported = tmp_path / "own.parquet"
    assert main(["export", str(folder), str(exported)]) == 0
    assert main(["analyze", str(exported), "--constant-score", "0.1"]) == 0
    assert main(["analyze", str(tmp_path / "nowhere.csv")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_advise_says_what_to_choose_and_what_to_train_next(folder, capsys):
    assert main(["advise", str(folder), "--batch-sizes", "256", "384"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("digits at epochs:1, for this test set, 2 × cpu:")
    for part in ("sgd: the largest batch size that loses nothing", "too few batch sizes", "Further trials"):
        assert part in said
    assert f"sgdscope run digits --out {folder} --batch-sizes 256 512 --learning-rates 0.125 0.5" in said


def test_advice_as_json_is_every_table_with_the_commands(folder, capsys):
    assert main(["advise", str(folder), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert set(tables) == {"rates", "costs", "leads", "seconds", "further"}
    assert {row["batch_size"] for row in tables["costs"]} == {256, 512}
    assert len(tables["rates"]) == 2 * 2 * 2
    assert all(row["command"].startswith("sgdscope run digits --out") for row in tables["further"])


def test_a_command_that_advice_gives_extends_the_folder(folder, tmp_path, capsys):
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    assert main(["advise", str(mine), "--json"]) == 0
    row = min(json.loads(capsys.readouterr().out)["further"], key=lambda row: row["trials"])
    assert main(shlex.split(row["command"])[1:]) == 0
    assert f"trained {row['trials']} trials" in capsys.readouterr().out


def test_plan_and_list(capsys):
    assert main(["plan", "digits", "--budgets", "epochs:1", *FAST]) == 0
    assert "trials     16" in capsys.readouterr().out
    assert main(["list"]) == 0
    assert capsys.readouterr().out.startswith("digits  Batch size at a constant epoch budget")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frob"], "Unrecognized options: frob"),
        (["run"], "Missing from sgdscope run: STUDY"),
        (["run", "mnist"], "study 'mnist' is neither built in (digits, digits_steps,"),
        (["run", "digits", "--colour", "red"], "Unrecognized options: --colour"),
        (["run", "digits", "--optimizers", "lion"], "optimizers: 'lion' is not an optimizer"),
        (["run", "digits", "--schedule", "step"], "schedule: 'step' is not a schedule"),
        (["run", "digits", "--batch-sizes"], "batch_sizes: give at least one"),
        (["run", "digits", "--batch-sizes", "0"], "batch_sizes: 0 is below 1"),
        (["run", "digits", "--batch-sizes", "2048"], "batch_sizes: 2048 is larger than the training set; use at most"),
        (["run", "digits", "--batch-sizes", "2.5"], "batch_sizes: '2.5' is not a whole number"),
        (["run", "digits", "--learning-rates", "-1"], "learning_rates: -1.0 is not positive and finite"),
        (["run", "digits", "--learning-rates", "nan"], "learning_rates: nan is not positive and finite"),
        (["run", "digits", "--learning-rates", "fast"], "learning_rates: 'fast' is not a number"),
        (["run", "digits", "--seeds", "0"], "seeds: 0 leaves nothing to train"),
        (["run", "digits", "--seeds", "five"], "seeds: 'five' is not a whole number"),
        (["run", "digits", "--budgets", "30"], "budgets: '30' is not a budget; write epochs:N, steps:N or unlimited"),
        (
            ["run", "digits", "--budgets", "epochs:1", "unlimited:5:100"],
            "budgets: ceiling 100 of an unlimited budget is",
        ),
        (["plan", "digits", "--seeds", "-1"], "seeds: -1 leaves nothing to train"),
        (["data"], "Expected one of {fetch, check}; sgdscope --help tells what there is."),
        (["data", "fetch"], "Missing from sgdscope data fetch: NAME"),
        (["data", "fetch", "imagenet"], "data set 'imagenet' is not one of mnist, cifar10, ptb"),
        (["status", "/nowhere"], "/nowhere holds no study"),
        (["report", "/nowhere"], "/nowhere holds no study"),
        (["advise", "/nowhere"], "/nowhere holds no study"),
        (["advise", "/nowhere", "--colour"], "Unrecognized options: --colour"),
        (["export", "/nowhere", "t.csv"], "/nowhere holds no study"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, said, capsys, tmp_path):
    extra = ["--out", str(tmp_path / "never")] if arguments[0] == "run" and len(arguments) > 1 else []
    assert main([*arguments, *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sgdscope: {said}")
    assert error.count("\n") == 1
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sgdscope as sg\nimport nosuchmodule\n", "line 2: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("x = 1\n", "defines no `study`"),
        ("study = 3\n", "defines no `study`"),
        ("x = (\n", "line 1: SyntaxError"),
        (
            "import sgdscope as sg\n\nstudy = sg.Study(name='s', workloads=1, batch_sizes=(1,), budgets=sg.Steps(0))",
            "line 3: budgets",
        ),
    ],
)
def test_a_study_file_that_fails_tells_its_own_error_with_its_line(text, said, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert main(["run", str(path), "--out", str(tmp_path / "never")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert str(path) in error
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("2048", "batch_sizes: 2048 is larger than the training set of digits; ask for at most its 1024 examples"),
        ("63", "batch_sizes: 63 lies more than 2 octaves beyond what was measured of digits (256 to 512)"),
        ("many", "batch_sizes: 'many' is not a whole number"),
    ],
)
def test_batch_sizes_that_cannot_be_advised_on_are_refused_in_one_sentence(size, said, folder, capsys):
    assert main(["advise", str(folder), "--batch-sizes", size]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith(f"sgdscope: {said}")


def test_another_studys_folder_is_refused_with_what_differs(folder, capsys):
    assert main(["run", "digits", "--out", str(folder), "--budgets", "epochs:2", *FAST]) == 2
    assert "holds another study, which differs in budgets (there epochs:1, here epochs:2)" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_and_a_file_of_another_kind(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["run", "digits", "--out", str(tmp_path / "file" / "s"), *FAST]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["export", str(folder), str(tmp_path / "t.xlsx")]) == 2
    assert "must end in .csv or .parquet" in capsys.readouterr().err
    assert main(["export", str(folder), str(tmp_path / "no" / "t.csv")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_data_check_has_a_line_for_each_set(tmp_path, capsys):
    assert main(["data", "check", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ("mnist", "cifar10", "ptb"), strict=True):
        assert line == f"{name} is not in {tmp_path}; `sgdscope data fetch {name} --data {tmp_path}` fetches it."
    (tmp_path / "ptb.test.txt").write_text("foreign")
    assert main(["data", "check", "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().out.splitlines()[2].startswith(f"ptb: {tmp_path}/ptb.train.txt is missing; `sgdscope")


def test_help_status_and_data_load_no_jax(folder):
    for arguments in (["--help"], ["run", "--help"], ["status", str(folder)], ["data", "check", "--data", "/nowhere"]):
        program = (
            "import sys\nfrom sgdscope.cli import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
            "assert 'jax' not in sys.modules and 'altair' not in sys.modules, 'loaded'"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_interrupting_exits_with_130_and_the_same_command_goes_on(study_file, command, tmp_path):
    folder = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-m", "sgdscope.cli", "run", str(study_file), "--out", str(folder)],
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    sent = False
    while process.poll() is None:
        if not sent and list(folder.glob("trials/*.parquet")):
            process.send_signal(signal.SIGINT)
            sent = True
        try:
            process.wait(timeout=0.005)
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 130
    assert "Interrupted; what was committed is safe" in process.stderr.read()
    process.stderr.close()
    assert "not finished" in command("status", folder).stdout
    assert command("run", study_file, "--out", folder).returncode == 0


def test_two_processes_on_one_folder(folder, capsys):
    from sgdscope.store import Store

    with Store(folder).writing():
        assert main(["run", "digits", "--out", str(folder), "--budgets", "epochs:1", *FAST]) == 2
    assert "is being written by another process" in capsys.readouterr().err
