import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import sgdscope as sg
from sgdscope.analysis.external_table import read_results, records_of
from sgdscope.analysis.tables import TABLES, Tables
from sgdscope.cli import Command, Data, _parsed, main
from sgdscope.report.text.summary import sentences
from sgdscope.studies import BUILT_IN

COLUMNS = {"trial_id", "workload", "optimizer", "batch_size", "learning_rate", "effective_learning_rate", "budget"}
COLUMNS |= {"seed", "status", "steps", "examples", "train_loss", "validation_score", "test_score", "diverged_at_step"}
COLUMNS |= {"seconds"}
FAST = ("--batch-sizes", "256", "512", "--learning-rates", "0.125", "0.5", "--seeds", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "study"
    assert main(["run", "digits", "--out", str(folder), "--budgets", "epochs:1", *FAST]) == 0
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A study with every kind of verdict: four batch sizes, two optimizers, three seeds."""
    folder = tmp_path_factory.mktemp("wide") / "study"
    fields = ["--batch-sizes", "64", "128", "256", "512", "--learning-rates", "0.0625", "0.25", "1", "4"]
    assert main(["run", "digits", "--out", str(folder), "--budgets", "epochs:3", "--seeds", "3", *fields]) == 0
    return folder


def test_fields_in_any_order_table_and_page(command, study_file, tmp_path):
    done = command("run", *FAST, "--out", tmp_path / "s", study_file, "--verbose", "--optimizers", "sgd")
    assert done.returncode == 0, done.stderr
    assert "compiled batch size 256, pack size 64: traced in" in done.stdout
    assert "test score" in done.stdout
    assert "2 of 2 batch sizes can be compared." in done.stdout
    assert (tmp_path / "s" / "report.html").stat().st_size < 2e6
    assert "left" in done.stderr  # plain lines of progress in a pipe


def test_a_sweep_is_run_by_its_option_or_its_earlier_name_and_goes_on_as_either(tmp_path, capsys):
    fields = ["--out", str(tmp_path / "s"), "--budgets", "steps:2", *FAST]
    assert main(["run", "digits", "--sweep", "steps", *fields]) == 0
    (commands,) = [json.loads(path.read_text()) for path in (tmp_path / "s").rglob("commands.json")]
    assert commands["digits"][:3] == ["digits", "--sweep", "steps"]
    assert sg.Result(tmp_path / "s").declaration.name == "digits-steps"
    capsys.readouterr()
    assert main(["run", "digits_steps", *fields]) == 0
    assert "nothing was left to train" in capsys.readouterr().out


def test_show_report_figures_and_export(folder, tmp_path, capsys):
    assert main(["show", str(folder)]) == 0
    assert "16 complete; 0 pending" in capsys.readouterr().out
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").exists()
    capsys.readouterr()
    assert main(["figures", str(folder), "--out", str(tmp_path / "figures")]) == 0
    written = capsys.readouterr().out.split()
    assert str(tmp_path / "figures" / "best-score.svg") in written
    for name, read in (("t.csv", pl.read_csv), ("t.parquet", pl.read_parquet)):
        assert main(["export", str(folder), str(tmp_path / name)]) == 0
        table = read(tmp_path / name)
        assert set(table.columns) >= COLUMNS
        assert len(table) == 16


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("margin", [None, 0.02])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_an_exported_table_says_what_its_study_says(wide, tmp_path, capsys, ending, margin):
    folder = wide
    if margin is not None:
        declared = shutil.copytree(wide, tmp_path / "declared") / "study.json"
        declared.write_text(declared.read_text().replace('"score_margin": 0.004', f'"score_margin": {margin}'))
        folder = declared.parent
    result = sg.Result(folder)
    # The digits do not diverge within so few updates, so trials are made to.
    gone, measured = pl.col("learning_rate") == 4, ("train_loss", "validation_score", "test_score")
    trials = result.tables.trials.with_columns(
        pl.when(gone).then(pl.lit("diverged")).otherwise("status").alias("status"),
        *(pl.when(~gone).then(name).alias(name) for name in measured),
    )
    result.tables = replace(result.tables, trials=trials)
    table = result.export(tmp_path / f"own.{ending}")
    read = read_results(table)
    theirs = Tables(read.trials, records_of(read), read.score_margin)
    assert theirs.record.constant_score == result.tables.record.constant_score
    assert read.notices == ()
    for name in TABLES:
        if name != "test_set":  # it takes which examples were right, which a table of trials does not hold
            assert_frame_equal(getattr(theirs, name), getattr(result.tables, name), rel_tol=1e-12)
    assert sentences(theirs) == sentences(result.tables)
    assert len(sentences(theirs)) > 5
    assert main(["analyze", str(table)]) == 0
    said = capsys.readouterr().out
    assert all(sentence in said for sentence in sentences(result.tables))


def test_claims_of_several_folders_as_text_and_json(folder, tmp_path, capsys):
    other = tmp_path / "other"
    assert main(["run", "digits", "--out", str(other), "--budgets", "steps:3", *FAST]) == 0
    capsys.readouterr()
    assert main(["claims", str(folder), str(other)]) == 0
    text = capsys.readouterr().out
    assert "not tested  Constant steps: the score falls for large" in text
    assert "(C8)" in text
    assert "0 batch sizes of 3 needed have a score" in text  # one rate, or two, have no optimum inside
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
    declared.write_text(declared.read_text().replace('"score_margin": 0.004', '"score_margin": 0.25'))
    assert main(["claims", str(declared.parent), str(folder)]) == 2
    assert "its score_margin is 0.004, that of" in capsys.readouterr().err


def test_anybodys_table_is_analyzed_and_a_studys_own_as_it_was(folder, tmp_path, capsys):
    table = tmp_path / "mine.csv"
    rows = [(size, rate, seed) for size in (8, 32) for rate in (0.1, 0.2, 0.4) for seed in (0, 1)]
    lines = [f"{size},{rate},{seed},{90 + size / 8 + seed - abs(rate - 0.2)}" for size, rate, seed in rows]
    table.write_text("\n".join(["batch_size,learning_rate,seed,score", *lines]))
    assert main(["analyze", str(table), "--out", str(tmp_path / "tables")]) == 0
    said = capsys.readouterr().out
    assert "94.5 [" in said  # the mean of 94 and 95 at batch size 32
    assert "sgd: use batch size 32 and learning rate 0.2" in said  # the only other one is worse
    score_limits = pl.read_csv(tmp_path / "tables" / "score_limits.csv")
    assert score_limits.row(0, named=True)["margin"] == pytest.approx(0.02 * (100 - 91.5))
    exported = tmp_path / "own.parquet"
    assert main(["export", str(folder), str(exported)]) == 0
    assert main(["analyze", str(exported)]) == 0
    assert main(["analyze", str(tmp_path / "nowhere.csv")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_advise_says_what_to_choose_and_what_to_train_next(folder, capsys):
    assert main(["advise", str(folder), "--batch-sizes", "256", "384"]) == 0
    said = capsys.readouterr().out
    assert re.match(r"digits at epochs:1, 2 × cpu \(\d+ threads\):", said)
    for part in (
        "sgd: best guess, not confirmed: batch size",
        "ot compared (the best rate's interval reaches the edge of the rates tried)",
        "larger learning rates at batch size",
        "too few batch sizes",
        "Further trials",
    ):
        assert part in said
    words = "--batch-sizes 256 512 --learning-rates 0.125 0.5 1 --budgets epochs:1 --seeds 2"
    assert f"\n  sgdscope run digits {words} --out {folder}\n" in said


def test_advice_as_json_is_every_table_with_the_commands(folder, capsys):
    assert main(["advise", str(folder), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)
    assert set(tables) == {"recommended", "rates", "costs", "leads", "seconds", "further"}
    assert {row["batch_size"] for row in tables["costs"]} == {256, 512}
    assert len(tables["rates"]) == 2 * 2 * 2
    assert all(row["command"].startswith("sgdscope run digits --batch-sizes 256 512 ") for row in tables["further"])


def test_a_command_that_advice_gives_extends_the_folder(folder, tmp_path, capsys):
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    assert main(["advise", str(mine), "--json"]) == 0
    row = min(json.loads(capsys.readouterr().out)["further"], key=lambda row: row["trials"])
    assert main(shlex.split(row["command"])[1:]) == 0
    assert f"trained {row['trials']} trials" in capsys.readouterr().out


def test_plan_and_studies(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # on a narrow terminal the studies are listed below each other
    assert main(["plan", "digits", "--budgets", "epochs:1", *FAST]) == 0
    assert "trials     16" in capsys.readouterr().out
    assert main(["studies"]) == 0
    heading, _, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["study", "data", "model", "sweep", "profiles", "needs"]
    assert [row.split()[0] for row in rows] == list(BUILT_IN)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frob"], "'frob' is not a command; there are run, work, plan,"),
        (["runn", "digits"], "'runn' is not a command; there are run, work, plan, show, watch, report, figures, "),
        (
            ["data", "fech", "mnist"],
            "'fech' is not a command of sgdscope data; there are fetch and check. Did you mean",
        ),
        (
            ["data", "fetch", "mnisst"],
            "data set 'mnisst' is not one of mnist, cifar10, ptb, fashion_mnist. Did you mean mnist?",
        ),
        (["run", "digts"], "study 'digts' is neither built in nor the path of a Python file. Did you mean digits?"),
        (["run", "digits-steps"], "study 'digits-steps' is neither built in nor the path of a Python file. Did you"),
        (["plan", "nothere.py"], "nothere.py: there is no such file."),
        (["plan", "/no/such/folder"], "/no/such/folder: there is no such file, since there is no folder /no/such."),
        (["plan", "/"], "/ is a folder, not a Python file that defines `study`"),
        (
            ["plan", "lstm", "--profile", "lapto"],
            "--profile: 'lapto' is not one of lstm's; there are full, laptop. Did you",
        ),
        (["run", "digits", "--seed", "3"], "'--seed' is not an option of sgdscope run. Did you mean --seeds?"),
        (
            ["run", "digits", "--batch_sizs=3"],
            "'--batch_sizs=3' is not an option of sgdscope run. Did you mean --batch",
        ),
        (["run", "digits", "--optimizers", "mometum"], "--optimizers: 'mometum' is not an optimizer; there are sgd, "),
        (["run", "digits", "--seeds", "99999999999"], "--seeds: 99999999999 is too large; use at most 10,000."),
        (
            ["run", "digits", "--batch-sizes", "4", "9" * 30],
            f"--batch-sizes: {'9' * 30} is larger than the training set",
        ),
        (
            ["run", "digits", "--budgets", "epochs:1e300"],
            "--budgets: epochs:1e+300 at batch size 2 is over 10^15 updates",
        ),
        (
            ["run", "digits", "--budgets", f"steps:{'9' * 90}"],
            "--budgets: steps: a number of over 60 digits is too large",
        ),
        (["figures", "/nowhere", "--format", "tiff"], "invalid choice 'tiff' for argument '--format'. Expected one of"),
        (
            ["report", "/nowhere", "--format", "pdf"],
            "'--format' is not an option of sgdscope report. `sgdscope figures",
        ),
        (["status", "my folder"], "status is now called show. Did you mean `sgdscope show 'my folder'`?"),
        (["list"], "list is now called studies. Did you mean `sgdscope studies`?"),
        (["report", "/nowhere", "--out", "page.pdf"], "page.pdf must end in .html, as the page is HTML; `sgdscope "),
        (["export", "/nowhere", "t.xlsx"], "t.xlsx must end in .csv or .parquet."),
        (["run"], "Give a study, or --csv FILE and --target COLUMN, and not both."),
        (["run", "mnist"], "study 'mnist' is neither built in (digits, methods,"),
        (["run", "digits", "--colour", "red"], "'--colour' is not an option of sgdscope run. See sgdscope run --help."),
        (["run", "digits", "--optimizers", "lion"], "--optimizers: 'lion' is not an optimizer"),
        (["run", "digits", "--schedule", "step"], "--schedule: 'step' is not a schedule"),
        (["run", "digits", "--batch-sizes"], "--batch-sizes: give at least one"),
        (["run", "digits", "--batch-sizes", "0"], "--batch-sizes: 0 is below 1"),
        (["run", "digits", "--batch-sizes", "2048"], "--batch-sizes: 2048 is larger than the training set; use at"),
        (["run", "digits", "--batch-sizes", "2.5"], "--batch-sizes: '2.5' is not a whole number"),
        (["run", "digits", "--learning-rates", "-1"], "--learning-rates: -1.0 is not positive and finite"),
        (["run", "digits", "--learning-rates", "nan"], "--learning-rates: nan is not positive and finite"),
        (["run", "digits", "--learning-rates", "fast"], "--learning-rates: 'fast' is not a number"),
        (["run", "digits", "--seeds", "0"], "--seeds: 0 leaves nothing to train"),
        (["run", "digits", "--seeds", "five"], "--seeds: 'five' is not a whole number"),
        (["run", "digits", "--budgets", "30"], "--budgets: '30' is not a budget; write epochs:N, steps:N or unlimited"),
        (
            ["run", "digits", "--budgets", "epochs:1", "unlimited:5:100"],
            "--budgets: ceiling 100 of an unlimited budget is",
        ),
        (["plan", "digits", "--seeds", "-1"], "--seeds: -1 leaves nothing to train"),
        (["data"], "Expected one of {fetch, check}. See sgdscope --help."),
        (["data", "fetch"], "Missing from sgdscope data fetch: NAME"),
        (["data", "fetch", "imagenet"], "data set 'imagenet' is not one of mnist, cifar10, ptb"),
        (["show", "/nowhere"], "/nowhere holds no study"),
        (["report", "/nowhere"], "/nowhere holds no study"),
        (["advise", "/nowhere"], "/nowhere holds no study"),
        (["advise", "/nowhere", "--colour"], "'--colour' is not an option of sgdscope advise. See sgdscope advise"),
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
        ("2048", "--batch-sizes: 2048 is larger than the training set of digits; ask for at most its 1024 examples"),
        ("63", "--batch-sizes: 63 lies more than 2 octaves beyond what was measured of digits (256 to 512)"),
        ("many", "--batch-sizes: 'many' is not a whole number"),
    ],
)
def test_batch_sizes_that_cannot_be_advised_on_are_refused_in_one_sentence(size, said, folder, capsys):
    assert main(["advise", str(folder), "--batch-sizes", size]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith(f"sgdscope: {said}")


def test_another_studys_folder_is_refused_with_what_differs(folder, capsys):
    assert main(["run", "digits", "--out", str(folder), "--budgets", "epochs:1", *FAST[:3]]) == 2
    said = capsys.readouterr().err
    assert "holds another study, which differs in learning_rates (there 0.125, 0.5, here none)" in said


def test_a_folder_that_cannot_be_written_and_a_file_of_another_kind(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["run", "digits", "--out", str(tmp_path / "file" / "s"), *FAST]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["export", str(folder), str(tmp_path / "t.xlsx")]) == 2
    assert "must end in .csv or .parquet" in capsys.readouterr().err
    assert main(["export", str(folder), str(tmp_path / "no" / "t.csv")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["report", "--out", "page.html"], ["export", "t.csv"]])
def test_a_page_or_table_never_replaces_what_is_no_file(folder, tmp_path, capsys, words):
    place = tmp_path / words[-1]
    os.mkfifo(place)
    assert main([words[0], str(folder), *words[1:-1], str(place)]) == 2
    assert "it is a device, a pipe or a socket, not a file" in capsys.readouterr().err
    assert place.is_fifo()
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize("through_link", [False, True])
def test_a_page_or_table_never_replaces_a_studys_own_file(folder, tmp_path, capsys, through_link):
    commit = next((folder / "trials").glob("*.parquet"))
    table, page = commit, folder / "leases" / f"{'a' * 16}.0"
    page.write_text("a worker")
    before = commit.read_bytes(), page.read_bytes()
    if through_link:
        table, page = tmp_path / "t.parquet", tmp_path / "page.html"
        table.symlink_to(commit)
        page.symlink_to(folder / "leases" / f"{'a' * 16}.0")
    for words in (["export", folder, table], ["report", folder, "--out", page]):
        assert main(list(map(str, words))) == 2
        said = capsys.readouterr().err
        assert "is a file of a study's own" in said or "must end in .html" in said
    assert (commit.read_bytes(), (folder / "leases" / f"{'a' * 16}.0").read_bytes()) == before
    (folder / "leases" / f"{'a' * 16}.0").unlink()


def test_data_check_has_a_line_for_each_set(tmp_path, capsys):
    assert main(["data", "check", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, name in zip(lines, ("mnist", "cifar10", "ptb", "fashion_mnist"), strict=True):
        assert line == f"{name} is not in {tmp_path}; `sgdscope data fetch {name} --data {tmp_path}` fetches it."
    (tmp_path / "ptb.test.txt").write_text("foreign")
    assert main(["data", "check", "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().out.splitlines()[2].startswith(f"ptb: {tmp_path}/ptb.train.txt is missing; `sgdscope")


def test_help_status_and_data_load_no_jax(folder):
    for arguments in (["--help"], ["run", "--help"], ["show", str(folder)], ["data", "check", "--data", "/nowhere"]):
        program = (
            "import sys\nfrom sgdscope.cli import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
            "assert 'jax' not in sys.modules, 'loaded'\n"
            # `show` prints the sentences of figures, whose files draw them too.
            f"assert {arguments[0]!r} == 'show' or 'altair' not in sys.modules, 'loaded'"
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
    assert "Interrupted. Committed trials are safe." in process.stderr.read()
    process.stderr.close()
    assert "not finished" in command("show", folder).stdout
    assert command("run", study_file, "--out", folder).returncode == 0


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, f"sgdscope {sg.__version__}\n")


def test_status_tells_what_is_there_and_its_command_goes_on(study_file, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "my studies" / "it's"
    quick = ("--batch-sizes", "256", "--learning-rates", "0.5", "--budgets", "epochs:1", "--optimizers", "sgd")
    assert main(["run", str(study_file), "--out", str(folder), *quick]) == 0
    (commit,) = (folder / "trials").iterdir()
    commit.rename(tmp_path / "kept")
    capsys.readouterr()
    assert main(["show", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "trials     none; 3 pending" in said
    (command,) = (line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("resume"))
    monkeypatch.chdir("/")
    assert main(shlex.split(command)[1:]) == 0
    assert "trained 3 trials" in capsys.readouterr().out
    assert main(["show", str(folder)]) == 0
    assert "3 complete; 0 pending\nstate      finished" in capsys.readouterr().out
    moved = study_file.rename(study_file.with_name("moved.py"))
    for path in (folder / "trials").iterdir():
        path.unlink()
    assert main(["show", str(folder)]) == 0
    assert f"resume     {study_file} is missing: name its new place" in capsys.readouterr().out
    (folder / "commands.json").unlink()
    assert main(["show", str(folder)]) == 0
    assert "resume     run the script that trains workload digits into this folder again" in capsys.readouterr().out
    (folder / "study.json").unlink()
    assert main(["show", str(folder)]) == 2
    assert "holds no study: it has no study.json." in capsys.readouterr().err
    assert moved.exists()


def test_status_counts_all_trials_of_the_folder(folder, tmp_path, capsys):
    mine = shutil.copytree(folder, tmp_path / "mine")
    declared = json.loads((mine / "study.json").read_text())
    (mine / "study.json").write_text(json.dumps(declared | {"batch_sizes": [256]}))
    assert main(["show", str(mine)]) == 0
    said = capsys.readouterr().out
    assert "trials     16 complete; 0 pending" in said
    assert "beside     8 of these trials are not part of the study as it is declared now" in said
    (mine / "study.json").unlink()
    assert main(["show", str(mine)]) == 2
    assert "it has trials but no study.json; the command that began it" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "min")]) == 2
    assert "there is no such folder." in capsys.readouterr().err


def test_a_plan_of_a_finished_folder_says_so_at_once(folder, capsys):
    assert main(["plan", "digits", "--out", str(folder), "--budgets", "epochs:1", *FAST]) == 0
    assert capsys.readouterr().out == f"Nothing is left to train: {folder} holds all trials of the study.\n"


def test_formats_that_do_not_exist_are_refused_before_anything_is_computed(folder, tmp_path, monkeypatch):
    result = sg.Result(folder)
    monkeypatch.setattr(sg.Result, "check_not_empty", None)
    with pytest.raises(sg.InputError, match=r"^'tiff' is not a format of figures. Use one of svg, png, pdf\.$"):
        result.save_figures(tmp_path / "figures", "tiff")
    with pytest.raises(sg.InputError, match=r"page\.pdf must end in \.html"):
        result.save_report(tmp_path / "page.pdf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ["--score-margin", "0"],
        ["--score-margin", "-1"],
        ["--score-margin", "nan"],
        ["--score-margin", "inf"],
        ["--score-margin", "50"],
        ["--examples", "-5"],
        ["--examples", "0"],
        ["--constant-score", "nan"],
        ["--constant-score", "-inf"],
    ],
)
def test_options_of_analyze_are_checked(tmp_path, capsys, options):
    table = tmp_path / "mine.csv"
    table.write_text("batch_size,learning_rate,seed,score\n8,1,0,0.9\n8,0.5,0,0.8\n")
    assert main(["analyze", str(table), *options]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert options[0] in said


def test_where_perfect_scores_leave_no_margin_one_is_asked_for(tmp_path, capsys):
    rows = [(size, rate, seed) for size in (8, 32) for rate in (0.1, 0.2, 0.4) for seed in (0, 1, 2)]
    lines = [f"{size},{rate},{seed},{(1 if size == 8 else 0.9) if rate == 0.2 else 0.5}" for size, rate, seed in rows]
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(["batch_size,learning_rate,seed,score", *lines]))
    assert main(["analyze", str(table)]) == 2
    assert "no margin follows from the scores" in capsys.readouterr().err
    assert main(["analyze", str(table), "--score-margin", "0.05"]) == 0
    said = capsys.readouterr().out
    assert "test accuracy 100 %" in said or "batch size 8 and learning rate" in said
    assert "It is the smallest tried: smaller ones may be better. Worse at 32." in said
    assert "Worse: lower by more than 5 points" in said


def test_a_table_in_which_all_trials_diverged_has_no_optimum(tmp_path, capsys):
    table = tmp_path / "mine.csv"
    table.write_text("batch_size,learning_rate,seed,score,status\n8,1,0,,diverged\n8,0.5,0,,diverged\n")
    assert main(["analyze", str(table), "--constant-score", "0.1"]) == 2
    assert "too many trials diverged at every learning rate" in capsys.readouterr().err


@pytest.mark.parametrize("reference", ["nan", "inf", "-inf"])
def test_a_reference_that_is_no_score_is_refused(folder, capsys, reference):
    assert main(["claims", str(folder), "--reference", reference]) == 2
    assert "is not a finite number" in capsys.readouterr().err


def test_a_defect_is_one_sentence_with_its_traceback_in_a_file(folder, tmp_path, capsys, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("sgdscope.result.Result.save_report", broken)
    mine = shutil.copytree(folder, tmp_path / "mine")
    assert main(["report", str(mine)]) == 70
    (said,) = capsys.readouterr().err.splitlines()
    (kept,) = (mine / "errors").iterdir()
    assert said.startswith("sgdscope: sgdscope failed (ZeroDivisionError)")
    assert str(kept) in said
    assert "in broken" in kept.read_text()
    with pytest.raises(ZeroDivisionError):
        main(["report", str(mine), "--debug"])
    monkeypatch.setattr("sgdscope.studies.overview", broken)
    assert main(["studies"]) == 70
    assert os.environ["SGDSCOPE_CACHE_DIR"] in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["show", "/nowhere"], ["data", "fetch", "imagenet"], ["plan", "nothere.py"]])
def test_debug_raises_a_users_mistake_too(arguments):
    with pytest.raises(sg.InputError):
        main([*arguments, "--debug"])


def test_show_has_the_table_and_the_sentences_of_a_finished_study(wide, capsys):
    assert main(["show", str(wide)]) == 0
    said = capsys.readouterr().out
    assert "state      finished" in said
    assert all(sentence in said for sentence in sentences(sg.Result(wide).tables))


COMMANDS = [*(kind.__name__.lower() for kind in get_args(Command) if kind is not Data), "data fetch", "data check"]


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("command", ["", "data", *COMMANDS])
def test_every_help_fits_the_terminal_and_says_defaults_as_a_user_does(command, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    usage, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith(f"usage: {' '.join(['sgdscope', *command.split()])} [-h]")
    assert max(map(len, lines)) <= width
    said = " ".join(line.strip("│ ") for line in lines)
    assert "None" not in said
    assert "False" not in said
    if command in COMMANDS:
        options = re.findall(r"(?:  |│ )--(?!help)[a-z][a-z-]*(?=\s)", "\n".join(lines))  # in one column or two
        assert said.count("(default: ") == len(options) > 0


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--optimizers", "sgd", "momentum:0.5", "adamw:weight_decay=0|0.01", "--budgets", "epochs:2", "steps:7"],
        ["--batch-sizes", "2", "64", "--learning-rates", "0.1", "1e-05", "--seeds", "3", "--schedule", "wsd:0.1:0.3"],
        ["--evaluate-at", "0.25", "1", "--noise-scale-at", "0", "0.5", "--score-margin", "0.01"],
        ["--microbatch-size", "8", "--devices-per-trial", "2", "--compute-dtype", "bfloat16", "--train-on-all"],
        ["--sweep", "steps", "--profile", "small", "--data", "/data"],
    ],
)
def test_the_words_that_a_folder_keeps_ask_for_the_same(options):
    asked = _parsed(["run", "lstm", *options])
    again = _parsed(["run", *asked.words])
    assert (again.study, again.source, again.fields) == (asked.study, asked.source, asked.fields)
    assert sorted(asked.words[1:]) == sorted(options)


def test_the_fields_of_a_study_are_options_of_run(tmp_path, capsys):
    given = ["--evaluate-at", "0.25", "1", "--noise-scale-at", "0.5", "--score-margin", "0.01"]
    assert main(["run", "digits", "--out", str(tmp_path / "s"), "--budgets", "steps:4", *FAST, *given]) == 0
    declaration = sg.load(tmp_path / "s").declaration
    assert (declaration.evaluate_at, declaration.noise_scale_at) == ((0.25, 1.0), (0.5,))
    assert declaration.score_margin == 0.01


def test_earlier_methods_of_a_result_warn_with_the_name_to_use(wide, tmp_path):
    result = sg.load(wide)
    with pytest.warns(DeprecationWarning, match=r"^Result.report is deprecated. Use Result.save_report\.$"):
        assert result.report(tmp_path / "page.html").exists()
    with pytest.warns(DeprecationWarning, match="Use Result.recommend"):
        assert_frame_equal(result.advice(96).rates, result.recommend([96]).rates)
    with pytest.warns(DeprecationWarning, match="Use Result.figures"):
        assert result.charts.best_score() is result.figures["best-score"]
    with pytest.warns(DeprecationWarning, match="Use Result.save_figures"):
        old = result.figures(tmp_path / "old", "svg")
    new = result.save_figures(tmp_path / "new")
    assert [path.name for path in old] == [path.name for path in new] == [f"{name}.svg" for name in result.figures]
    with pytest.raises(sg.InputError, match=r"there is no figure 'best-scor'\. Did you mean best-score\?"):
        _ = result.figures["best-scor"]


def test_several_folders_and_a_table_are_loaded_from_python(folder, wide, tmp_path):
    both = sg.load(folder, wide)
    assert type(both) is sg.Analysis
    assert len(both.trials) == len(sg.load(folder).trials) + len(sg.load(wide).trials)
    assert any(name.endswith("best-score") for name in both.figures)
    assert type(sg.load(wide)) is sg.Result
    mine = sg.load_table(sg.load(wide).export(tmp_path / "own.parquet"))
    assert_frame_equal(mine.optima, sg.load(wide).optima)
    assert set(mine.figures) <= set(sg.load(wide).figures)
    assert "best-score" in mine.figures


def test_folders_of_one_workload_need_one_margin(wide, tmp_path):
    other = shutil.copytree(wide, tmp_path / "other")
    declaration = json.loads((other / "study.json").read_text())
    (other / "study.json").write_text(json.dumps(declaration | {"score_margin": 0.01}))
    with pytest.raises(sg.InputError, match=r"its score_margin is 0\.01, that of another .*'digits' is 0\.004"):
        sg.load(wide, other)
    (other / "study.json").write_text(json.dumps(declaration | {"score_margin": None}))
    assert set(sg.load(wide, other).tables.score_limits["margin"]) == {0.004}


def test_a_csv_file_and_its_target_are_a_study(tmp_path, capsys):
    path, out = tmp_path / "patients.csv", str(tmp_path / "s")
    rows = [{"age": 20 + i % 50, "sex": "mf"[i % 2], "ill": "yes" if i % 50 > 25 else "no"} for i in range(120)]
    pl.DataFrame(rows).write_csv(path)
    options = [
        "--csv",
        str(path),
        "--target",
        "ill",
        "--batch-sizes",
        "8",
        "32",
        "--seeds",
        "2",
        "--budgets",
        "epochs:2",
    ]
    assert main(["run", *options, "--optimizers", "sgd", "--out", out]) == 0
    result = sg.load(out)
    assert (result.declaration.name, result.declaration.batch_sizes) == ("patients", (8, 32))
    assert result.tables.records["patients"].examples == (72, 24, 24)
    # The words that the folder keeps go on from anywhere.
    from sgdscope.store import Store

    (kept,) = Store(out).commands().values()
    assert kept[:4] == ["--csv", str(path), "--target", "ill"]
    assert main(["run", *kept, "--out", out]) == 0
    assert sg.load(out).trials.equals(result.trials)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give a study, or --csv FILE and --target COLUMN"),
        (["digits", "--csv", "x.csv", "--target", "y"], "and not both"),
        (["--csv", "x.csv"], "belong together"),
        (["digits", "--target", "y"], "belong together"),
        (["--csv", "x.csv", "--target", "y"], "x.csv cannot be read"),
        (["--csv", "x.csv", "--target", "y", "--task", "ranking"], "'ranking' is neither"),
        (["--csv", "x.csv", "--target", "y", "--sweep", "steps"], "not for --csv"),
    ],
)
def test_a_table_that_is_no_study_is_refused_in_a_sentence(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *words]) == 2
    assert said in capsys.readouterr().err
