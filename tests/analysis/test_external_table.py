"""Anybody's table of trials: what is read, what is refused, and that it gives what the study's own table gives."""

import math

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from sgdscope.analysis.external_table import Results, check_margin, read_results, records_of
from sgdscope.analysis.gaps import gap_sentences
from sgdscope.analysis.score_limits import score_margin
from sgdscope.analysis.tables import TABLES, Tables
from sgdscope.errors import InputError
from sgdscope.testing import simulated


@pytest.fixture(scope="module")
def trials():
    rng = np.random.default_rng(0)
    sizes = (4, 16, 64, 256)
    studies = {name: simulated.simulate(rng, 4, simulated.Truth(), sizes) for name in ("sgd", "momentum:0.9")}
    return simulated.trial_table(studies)


def written(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_four_columns_are_enough(tmp_path):
    path = written(tmp_path, "batch_size,learning_rate,seed,score,remark\n8,0.5,0,0.9,x\n8,1,0,,y\n16,0.5,0,nan,z\n")
    results = read_results(path)
    assert results.trials["status"].to_list() == ["complete"]
    assert results.trials["test_score"].to_list() == [0.9]
    assert results.trials.select("workload", "budget", "optimizer").unique().rows() == [("results", "budget", "sgd")]
    assert results.trials["effective_learning_rate"].to_list() == [0.5]
    assert results.notices == ("2 of 3 rows are left out: 2 without a score.",)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_it_gives_what_the_studys_own_table_gives(tmp_path, trials, ending):
    path = tmp_path / f"mine.{ending}"
    (trials.write_csv if ending == "csv" else trials.write_parquet)(path)
    read = read_results(path)
    own = Tables(trials, {"simulated": simulated.RECORD}, score_margin=0.004)
    records = records_of(read, constant_score=0.11, examples=1024)
    theirs = Tables(read.trials, records, score_margin=0.004)
    for name in ("curves", "optima", "transitions", "regimes", "score_limits"):
        assert_frame_equal(getattr(theirs, name), getattr(own, name))


def test_every_table_has_its_name(trials):
    tables = Tables(trials, {"simulated": simulated.RECORD})
    assert set(tables.all()) == set(TABLES)
    for name, table in tables.all().items():
        assert {"workload", "budget", "optimizer"} <= set(table.columns), name


def test_momentum_has_its_effective_rate_and_others_are_taken_as_they_are(tmp_path):
    rows = "8,0.5,0,0.9,momentum:0.9\n8,0.5,0,0.9,adam\n8,0.5,0,0.9,sgd\n"
    results = read_results(written(tmp_path, "batch_size,learning_rate,seed,score,optimizer\n" + rows))
    assert results.trials["effective_learning_rate"].to_list() == pytest.approx([5.0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_size,learning_rate,seed\n1,2,3\n", "no column 'score'"),
        ("batch_size,learning_rate,seed,score\n", "holds no trials"),
        ("batch_size,learning_rate,seed,score\n8,fast,0,1\n", "learning_rate 'fast' is not a number"),
        ("batch_size,learning_rate,seed,score\n8,1,0,good\n", "score 'good' is not a number"),
        ("batch_size,learning_rate,seed,score\n8,1,0,1\n0,1,0,1\n", "batch_size '0' is wrong in line 3"),
        ("batch_size,learning_rate,seed,score\n8.5,1,0,1\n", "batch_size '8.5' is wrong in line 2"),
        ("batch_size,learning_rate,seed,score\n8,-1,0,1\n", "learning_rate '-1' is wrong in line 2"),
        ("batch_size,learning_rate,seed,score\n8,,0,1\n8,1,0,1\n", "learning_rate is empty in line 2"),
        (
            "batch_size,learning_rate,seed,score\n8,1,0,1\n8,1,0,0.5\n",
            "is there twice with different results, in line 2 and line 3",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=r"table\.csv") as caught:
        read_results(path)
    assert said in str(caught.value)


def test_files_that_are_no_tables_are_refused(tmp_path):
    for path, said in (
        (tmp_path / "nowhere.csv", "does not exist"),
        (written(tmp_path, "x", "table.txt"), "must end in .csv or .parquet"),
        (written(tmp_path, "no parquet", "table.parquet"), "cannot be read as a table"),
        (written(tmp_path, "", "empty.csv"), "cannot be read as a table"),
    ):
        with pytest.raises(InputError, match=said):
            read_results(path)


def test_a_diverged_trial_needs_a_constant_baseline(tmp_path):
    rows = "batch_size,learning_rate,seed,score,status\n8,1,0,, Diverged \n8,0.5,0,0.9,ok\n"
    results = read_results(written(tmp_path, rows))
    assert results.trials["status"].to_list() == ["diverged", "complete"]
    with pytest.raises(InputError, match=r"1 trial diverged\. Give --constant-score"):
        records_of(results)
    assert records_of(results, constant_score=0.1)["results"].constant_score == 0.1


@pytest.mark.usefixtures("quick")
def test_a_table_without_the_constant_predictors_score_has_its_bends_all_the_same(trials):
    results = Results(trials, {})
    known, unknown = (Tables(trials, records_of(results, constant_score=score)) for score in (0.1, None))
    assert set(known.transitions["status"]) != {"too few batch sizes"}
    assert_frame_equal(unknown.transitions, known.transitions)
    assert_frame_equal(unknown.regimes, known.regimes)


def test_scores_up_to_100_are_percentages_and_their_margin_is_a_share_of_the_errors(tmp_path):
    results = read_results(written(tmp_path, "batch_size,learning_rate,seed,score\n8,1,0,90.0\n8,0.5,0,91.0\n"))
    record = records_of(results)["results"]
    assert record.score_name == "accuracy (%)"
    assert score_margin(90.0, record) == pytest.approx(0.2)  # 2 % of ten points of errors
    assert score_margin(60.0, record) == pytest.approx(0.5)  # at most half a point
    assert records_of(results, minimize=True)["results"].score_goal == "minimize"
    assert records_of(results, minimize=True)["results"].score_name == "score"
    assert math.isnan(record.constant_score)


def test_workloads_and_budgets_are_parts_of_their_own(trials):
    later = trials.with_columns(budget=pl.lit("epochs:120"))
    steps = trials.with_columns(budget=pl.lit("steps:9"))
    tables = Tables(pl.concat([steps, later, trials]), {"simulated": simulated.RECORD})
    assert [part.title for part in tables.parts] == [
        "simulated at epochs:30",
        "simulated at epochs:120",
        "simulated at steps:9",
    ]
    assert_frame_equal(tables.parts[0].transitions, Tables(trials, tables.records).transitions)


# ── What a table may look like ───────────────────────────────────────────────────────────────────────────────

RATES, SIZES, SEEDS = (0.0625, 0.125, 0.25, 0.5), (8, 32, 128), (0, 1, 2)


def planted(best=(0.0625, 0.25, 0.25), seeds=SEEDS):
    """Rows of a sweep whose best rates are planted, as text by column."""
    return [
        {
            "optimizer": "sgd",
            "batch_size": str(size),
            "learning_rate": str(rate),
            "seed": str(seed),
            "score": f"{0.95 - 0.01 * math.log2(rate / top) ** 2 + 0.001 * (seed - 1):.4f}",
            "train_loss": f"{0.05 + 0.02 * math.log2(rate / top) ** 2 + 0.001 * seed:.4f}",
        }
        for size, top in zip(SIZES, best, strict=True)
        for rate in RATES
        for seed in seeds
    ]


def as_csv(rows, separator=","):
    lines = [list(rows[0]), *(row.values() for row in rows)]
    return "\n".join(separator.join(line) for line in lines) + "\n"


def best_rates(results, **options):
    optima = Tables(results.trials, records_of(results, **options)).optima
    return optima.filter(criterion="score").sort("batch_size")["learning_rate"].to_list()


FORMS = {
    "semicolons": lambda text: text.replace(",", ";"),
    "semicolons and decimal commas": lambda text: text.replace(",", ";").replace(".", ","),
    "tabs": lambda text: text.replace(",", "\t"),
    "byte-order mark": lambda text: "\ufeff" + text,
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
    "old Mac lines": lambda text: text.replace("\n", "\r").encode(),
    "Windows lines": lambda text: text.replace("\n", "\r\n").encode(),
    "a title": lambda text: "Sweep of June\n\n" + text,
    "a title of a spreadsheet": lambda text: "Sweep of June;;;;;\n" + text.replace(",", ";"),
    "comments": lambda text: "# sweep.py\n# 3 sizes, 4 rates\n" + text,
    "a heading that is a comment": lambda text: "# " + text,
    "Markdown": lambda text: "\n".join(
        f"| {line.replace(',', ' | ')} |" + ("\n|" + " :-- |" * 6 if i == 0 else "")
        for i, line in enumerate(text.splitlines())
    ),
    "aligned columns": lambda text: "\n".join(
        " ".join(f"{field:<16}" for field in line.split(",")) for line in text.splitlines()
    ),
    "a heading of several lines": lambda text: text.replace("batch_size", '"batch\nsize"'),
    "blank lines": lambda text: "\n" + text.replace("\n", "\n\n") + " \n,,,,,\n",
    "separator named": lambda text: "sep=;\n" + text.replace(",", ";"),
    "an index": lambda text: "\n".join(f"{i - 1 if i else ''},{line}" for i, line in enumerate(text.splitlines())),
    "row names": lambda text: "\n".join(f"r{i},{line}" if i else line for i, line in enumerate(text.splitlines())),
    "separators at the end": lambda text: text.replace("\n", ",\n"),
    "a column twice": lambda text: "\n".join(f"{line},{line.split(',')[3]}" for line in text.splitlines()),
    "capitals": lambda text: text.replace("batch_size", " Batch Size ").replace("seed", "SEED"),
    "quotes": lambda text: "\n".join('"' + line.replace(",", '","') + '"' for line in text.splitlines()),
    "percent": lambda text: percentages(text, ""),
    "percent signs": lambda text: percentages(text, "%"),
    "a column of text after 100 rows": lambda text: "\n".join(
        f"{line},{'note' if not i else i if i < 30 else 1.5 if i < 33 else 'x'}"
        for i, line in enumerate(text.splitlines())
    ),
}


def percentages(text, sign):
    first, *lines = text.splitlines()
    fields = [line.split(",") for line in lines]
    return "\n".join([first, *(",".join([*f[:4], f"{100 * float(f[4]):.2f}{sign}", *f[5:]]) for f in fields)])


@pytest.mark.parametrize("form", FORMS)
def test_a_table_is_read_in_each_form(tmp_path, form):
    content = FORMS[form](as_csv(planted()))
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    results = read_results(path)
    assert len(results.trials) == 36
    assert results.notices == ()
    assert best_rates(results) == [0.0625, 0.25, 0.25]
    assert results.trials["seed"].unique().sort().to_list() == [0, 1, 2]


HEAD = "batch_size,learning_rate,seed,score,train_loss\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bs,rates,seed,val_acc\n8,1,0,0.5\n", "Say which columns hold them: --columns learning_rate=NAME"),
        ("batchsizes,lr,seed,acc\n8,1,0,0.5\n", "Say which columns hold them: --columns batch_size=batchsizes"),
        (
            "bs,encoder.lr,head.lr,seed,acc\n8,1,2,0,0.5\n8,2,2,0,.6\n8,2,1,0,.6\n",
            "encoder.lr or head.lr may be learning",
        ),
        ("x\ty\n8\t1\n", "Its columns are x and y"),
        ("8,0.5,0,0.9\n8,0.5,1,0.9\n", "first line holds numbers in place of names"),
        (HEAD + "8,1,0,0.5\n", "line 2 has 4 fields and the heading has 5, separated by commas"),
        (HEAD + '"64 ",1,0,0.5,1\n2.5,1,0,0.5,1\n', "batch_size '2.5' is wrong in line 3"),
        (HEAD + '\n"1,024",1,0,"0.5\n",1\n1e30,1,0,0.5,1\n', "batch_size '1e30' is wrong in line 5"),
        (HEAD + "-4,1,0,0.5,1\n", "batch_size '-4' is wrong in line 2. It must be a whole number from 1"),
        (HEAD + "8,nan,0,0.5,1\n", "learning_rate is empty in line 2"),
        (HEAD + "8,inf,0,0.5,1\n", "learning_rate 'inf' is wrong in line 2"),
        (HEAD + "8,1,,0.5,1\n", "seed is empty in line 2"),
        (HEAD + "8,1,0,97%,1\n8,1,1,0.97,1\n", "score is a percentage in line 2 and has no % in line 3"),
        (
            HEAD + '8,1,0,"0,97",1\n8,1,1,0.97,1\n',
            "'0,97' in line 2 has a decimal comma and '0.97' in line 3 a decimal",
        ),
        (HEAD + "8,1,0,1e300,1\n", "score 1e\\+300 in line 2 is too large"),
        (HEAD + "8,1,0,,1\n", "holds no trials with a result. 1 of 1 rows are left out: 1 without a score"),
        (HEAD + "8,0.5,0,0.5,1\n8,0.50001,0,0.6,1\n", "line 2 and line 3 hold the same trial"),
        ("batch_size,learning_rate,seed,score,score\n8,1,0,0.5,0.6\n", "two columns 'score' that differ"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_the_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_results(written(tmp_path, text))


def test_numbers_are_read_as_people_write_them(tmp_path):
    rows = '"1,024",1e-1,0,0.5,\u22121\n1e3,.5,1,0.5,2\n" 64 ",1,2,5e-1,n/a\n1 024,+2,3,0.5,inf\n'
    trials = read_results(written(tmp_path, HEAD + rows)).trials
    assert trials["batch_size"].to_list() == [1024, 1000, 64, 1024]
    assert trials["learning_rate"].to_list() == [0.1, 0.5, 1.0, 2.0]
    assert trials["train_loss"].to_list() == [-1.0, 2.0, None, None]


@pytest.mark.parametrize("seeds", [("1" * 40, "2" * 40, "3" * 40), ("a", "b", "10"), ("-1", "0", "7")])
def test_seeds_are_numbers_or_names_of_any_length(tmp_path, seeds):
    rows = [row | {"seed": seeds[int(row["seed"])]} for row in planted()]
    results = read_results(written(tmp_path, as_csv(rows)))
    assert results.trials["seed"].n_unique() == 3
    assert best_rates(results) == [0.0625, 0.25, 0.25]


# ── Which rows count ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "state", ["finished", "COMPLETE", "FINISHED", "TERMINATED", "COMPLETED", " success ", "done", "ok"]
)
def test_states_of_a_complete_run_count(tmp_path, state):
    rows = [row | {"status": state} for row in planted()]
    results = read_results(written(tmp_path, as_csv(rows)))
    assert len(results.trials) == 36
    assert results.notices == ()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("crashed", "1 crashed"),
        ("PRUNED", "1 pruned"),
        ("RUNNING", "1 running"),
        ("CANCELLED by 1000", "1 cancelled by 1000"),
        ("OUT_OF_ME+", "1 of the unknown status 'OUT_OF_ME+'"),
        ("odd", "1 of the unknown status 'odd'"),
        ("", "1 without a status"),
        ("7", "1 of the unknown status '7'"),
    ],
)
@pytest.mark.parametrize("column", ["status", "State"])
def test_other_states_are_left_out_and_named(tmp_path, state, said, column):
    rows = [row | {column: state if number == 35 else "finished"} for number, row in enumerate(planted())]
    results = read_results(written(tmp_path, as_csv(rows)))
    assert results.notices == (f"1 of 36 rows are left out: {said}.",)
    assert set(results.trials["status"]) == {"complete"}
    assert len(results.trials) == 35


@pytest.mark.parametrize("score", ["", "nan", "NaN", "None", "N/A", "inf"])
def test_a_complete_trial_without_a_score_is_no_divergence(tmp_path, score):
    rows = [row | {"status": "complete"} for row in planted(seeds=range(4))]
    rows[0]["score"] = score
    results = read_results(written(tmp_path, as_csv(rows)))
    assert results.notices == ("1 of 48 rows are left out: 1 without a score.",)
    assert set(results.trials["status"]) == {"complete"}
    assert best_rates(results) == [0.0625, 0.25, 0.25]  # though it was of the best rate


def test_a_rate_of_which_two_trials_have_a_score_is_left_out_and_named(tmp_path):
    """Of means of two trials beside means of three the largest would be the luckiest."""
    rows = planted()
    rows[0]["score"] = ""
    results = read_results(written(tmp_path, as_csv(rows)))
    assert best_rates(results) == [0.125, 0.25, 0.25]
    (said,) = gap_sentences(results.trials, records_of(results))
    assert said.startswith("sgd at batch size 8: learning rate 0.0625 lacks seeds that the others have, and is left")


def test_a_missing_training_loss_is_not_the_largest_of_the_table(tmp_path):
    rows = planted(seeds=range(4))  # of three, a rate with two would be left out
    whole = read_results(written(tmp_path, as_csv(rows)))
    rows[(4 + 2) * 4]["train_loss"] = ""  # batch size 32 at its best rate
    results = read_results(written(tmp_path, as_csv(rows)))
    for table in ("optima", "curves"):
        mine, all_ = (getattr(Tables(of.trials, records_of(of)), table) for of in (results, whole))
        assert mine["learning_rate"].to_list() == all_["learning_rate"].to_list()
        assert mine["train_loss"].to_numpy() == pytest.approx(all_["train_loss"].to_numpy(), rel=0.03)


def test_repeated_rows_are_dropped_and_counted(tmp_path):
    rows = planted()
    results = read_results(written(tmp_path, as_csv([*rows, *rows[:3]])))
    assert len(results.trials) == 36
    assert results.notices == ("3 rows repeat other rows and are left out.",)


# ── What scores and options mean ─────────────────────────────────────────────────────────────────────────────


def turned(how):
    return [row | {"score": f"{how(float(row['score'])):.5f}"} for row in planted()]


@pytest.mark.parametrize("loss", [True, False])
@pytest.mark.parametrize(
    "how", [lambda score: 1 - score, lambda score: 50 * (1 - score), lambda score: 800 * (1 - score)]
)
def test_scores_that_behave_like_a_loss_are_asked_about(tmp_path, how, loss):
    rows = [row if loss else {k: v for k, v in row.items() if k != "train_loss"} for row in turned(how)]
    rows = [row for row in rows if row["learning_rate"] != "0.0625" or row["batch_size"] != "8"]
    results = read_results(written(tmp_path, as_csv(rows)))
    with pytest.raises(InputError, match=r"may be better where they are smaller: .* Give --minimize"):
        records_of(results)
    assert best_rates(results, minimize=True)[1:] == [0.25, 0.25]
    for row in rows:
        row["score_goal"] = "maximize"
    declared = read_results(written(tmp_path, as_csv(rows)))
    assert records_of(declared)["results"].score_goal == "maximize"


def test_a_score_that_is_named_a_loss_is_minimized(tmp_path):
    rows = [row | {"score_name": "perplexity"} for row in turned(lambda score: 800 * (1 - score))]
    results = read_results(written(tmp_path, as_csv(rows)))
    assert records_of(results)["results"].score_goal == "minimize"
    assert best_rates(results) == [0.0625, 0.25, 0.25]


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf, 0.2])
def test_a_margin_that_no_difference_could_exceed_is_refused(tmp_path, margin):
    results = read_results(written(tmp_path, as_csv(planted())))
    with pytest.raises(InputError, match="--score-margin"):
        check_margin(margin, results.trials)
    assert check_margin(0.004, results.trials) == 0.004


@pytest.mark.parametrize(
    "options",
    [
        {"examples": 0},
        {"examples": -5},
        {"constant_score": math.nan},
        {"constant_score": math.inf},
        {"constant_score": 10.0},
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options):
    with pytest.raises(InputError, match=f"--{next(iter(options)).replace('_', '-')}"):
        records_of(read_results(written(tmp_path, as_csv(planted()))), **options)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum:0.9"])
def test_fractions_among_percentages_are_refused_unless_the_table_says_so(tmp_path, trials, optimizer):
    fractions = (pl.col("optimizer") == optimizer) & (pl.col("batch_size") == 64)
    scores = [pl.col(name) * pl.when(fractions).then(1).otherwise(100) for name in ("test_score", "validation_score")]
    mixed = trials.with_columns(*scores)
    mixed.write_csv(tmp_path / "mixed.csv")
    with pytest.raises(InputError, match=f"at batch size 64 with {optimizer} none exceeds 0"):
        records_of(read_results(tmp_path / "mixed.csv"), constant_score=10.0)
    mixed.with_columns(score_name=pl.lit("accuracy (%)")).write_csv(tmp_path / "said.csv")
    (record,) = records_of(read_results(tmp_path / "said.csv"), constant_score=10.0).values()
    assert record.score_name == "accuracy (%)"
