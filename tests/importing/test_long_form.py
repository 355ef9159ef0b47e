"""Tables with a row for each epoch are read as one run each; tables of runs stay as they are."""

import pytest

from sgdscope.analysis.external_table import read_results

RUNS = [(size, rate, seed) for size in (8, 32) for rate in (0.1, 0.2) for seed in (0, 1)]


def curve(size, rate, seed):
    """The scores of a run after each epoch, of which the second is the best."""
    last = 0.5 + rate + seed / 100 + size / 1000
    return [round(last - 0.2, 4), round(last + 0.1, 4), round(last, 4)]


def written(tmp_path, heading, rows):
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([heading, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


@pytest.mark.parametrize("counter", ["epoch", "_step", "global_step", "trainer/global_step"])
@pytest.mark.parametrize(("value", "place"), [("last", 2), ("best", 1)])
@pytest.mark.parametrize("order", [1, -1])
def test_the_last_or_the_best_of_the_epochs_is_a_runs(tmp_path, counter, value, place, order):
    rows = [(*run, epoch, score) for run in RUNS for epoch, score in enumerate(curve(*run))][::order]
    results = read_results(written(tmp_path, f"bs,lr,seed,{counter},val_acc", rows), value=value)
    scores = results.trials.select("batch_size", "learning_rate", "seed", "test_score").rows()
    assert {row[:3]: row[3] for row in scores} == {run: curve(*run)[place] for run in RUNS}
    assert results.notices == ("The 24 rows are points along the training of 8 runs.",)
    assert f"Scores are the {value} values along training." in results.taken


def test_runs_without_seeds_are_told_by_their_names_and_a_score_that_is_not_in_the_last_row_counts(tmp_path):
    rows = [
        (f"run-{number}", *run[:2], epoch, score if epoch < 2 else "")
        for number, run in enumerate(RUNS)
        for epoch, score in enumerate(curve(*run))
    ]
    results = read_results(written(tmp_path, "name,bs,lr,epoch,val_acc", rows))
    assert sorted(results.trials["test_score"]) == sorted(curve(*run)[1] for run in RUNS)


def test_runs_that_ended_at_different_epochs_are_runs(tmp_path):
    rows = [(*run[:2], 40 + 3 * run[2] + number, curve(*run)[-1]) for number, run in enumerate(RUNS)]
    results = read_results(written(tmp_path, "bs,lr,epoch,val_acc", rows))
    assert len(results.trials) == len(RUNS)
    assert "points along" not in " ".join(results.notices)
