import contextlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import weakref
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

import sgdscope as sg
import sgdscope.advice.until_decided
import sgdscope.engine.run
from sgdscope.analysis.saturation import saturation
from sgdscope.analysis.test_set import correct
from sgdscope.engine.plan import Costs
from sgdscope.engine.run import train_study
from sgdscope.report.text.summary import sentences, summary_rows
from sgdscope.result import read_folders
from sgdscope.seeds import Seeds
from sgdscope.store import Store
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.training import loop, traced
from sgdscope.training.noise_scale import NOISE_METRICS
from sgdscope.training.packed import PackedBackend
from sgdscope.training.sharpness import SHARPNESS_METRICS
from sgdscope.workloads.base import Workload
from sgdscope.workloads.digits import digits


def quietly(study, folder):
    text = io.StringIO()
    result = sg.run(study, folder, Console(file=text, width=200))
    return result, text.getvalue()


def quadratic_study(**changes):
    plain = {
        "name": "quadratic",
        "workloads": NoisyQuadratic().workload(),
        "batch_sizes": (1, 4, 16),
        "budgets": sg.Epochs(1),
        "seeds": 5,
    }
    return sg.Study(**(plain | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "study"
    return quietly(quadratic_study(), folder)[0]


def test_a_study_runs_to_its_end(finished):
    assert finished.finished
    assert finished.ran.trained == len(finished.trials)
    assert finished.ran.failed == 0
    trials = finished.trials
    assert trials["trial_id"].is_unique().all()
    complete = trials.filter(pl.col("status") == "complete")
    assert (complete["steps"] * complete["batch_size"] == 256).all()
    assert (complete["examples"] == 256).all()
    assert complete.select("train_loss", "validation_score", "test_score").null_count().sum_horizontal()[0] == 0
    diverged = trials.filter(pl.col("status") == "diverged")
    assert (diverged["diverged_at_step"] == diverged["steps"]).all()
    assert diverged["train_loss"].null_count() == len(diverged)
    assert finished.measurements["trial_id"].is_in(trials["trial_id"].to_list()).all()


def test_the_best_rate_of_the_quadratic_is_the_one_that_its_moments_give(tmp_path):
    """The truth is the exact recursion under this schedule, minimised over the same grid.

    The recursion gives the mean loss, so it is the score, whose plain mean is compared, that must find its best
    rate; the training loss is compared by its logarithm, and that has another mean.
    """
    quadratic = NoisyQuadratic()
    result, _ = quietly(quadratic_study(seeds=24), tmp_path / "s")
    for row in result.optima.filter(pl.col("criterion") == "score").iter_rows(named=True):
        momentum = 0.9 if row["optimizer"] != "sgd" else 0.0
        updates = 256 // row["batch_size"]
        factor = np.array([0.5 ** max(0, 20 * t // updates - 9) for t in range(updates)])
        grid = 2.0 ** np.arange(-14, 3)
        with np.errstate(over="ignore", invalid="ignore"):
            losses = [quadratic.expected_loss(rate * factor, momentum, row["batch_size"])[-1] for rate in grid]
        best = grid[np.nanargmin(losses)]
        assert row["learning_rate_low"] <= best <= row["learning_rate_high"]


def test_running_it_again_trains_nothing(finished):
    again, said = quietly(quadratic_study(), finished.folder)
    assert again.ran.trained == 0
    assert said.strip() == ""
    assert again.trials.equals(finished.trials)


def test_the_noise_scale_is_measured_beside_a_study_that_is_what_it_was(finished, tmp_path):
    measured, _ = quietly(quadratic_study(noise_scale_at=(0, 1)), tmp_path / "s")
    assert measured.numbers().equals(finished.numbers())
    rows = measured.measurements.filter(pl.col("metric").is_in(NOISE_METRICS))
    assert measured.measurements.join(rows, on=["trial_id", "step", "metric"], how="anti").equals(finished.measurements)
    assert rows["examples"].unique().sort().to_list() == [0, 256]
    assert finished.tables.noise_scale.is_empty()
    table = measured.tables.noise_scale
    h = np.array(NoisyQuadratic().curvatures)
    start = table.filter(fraction=0)
    assert start["identified"].all()  # |G|² = Σ h² and tr Σ = Σ h², where every coordinate is 1 and every noise too
    assert ((start["noise_scale_low"] < 1) & (start["noise_scale_high"] > 1)).all()
    assert start["gradient_square_norm"].to_numpy() == pytest.approx((h**2).sum(), rel=0.1)
    assert any(sentence.endswith("This is context, not a verdict.") for sentence in sentences(measured.tables))
    with pytest.raises(sg.InputError, match=r"noise_scale_at \(there none, here 0.0\)"):
        quietly(quadratic_study(noise_scale_at=(0,)), finished.folder)


def test_the_sharpness_is_measured_beside_a_study_that_is_what_it_was(finished, tmp_path):
    measured, _ = quietly(quadratic_study(sharpness_at=(0, 1)), tmp_path / "s")
    assert measured.numbers().equals(finished.numbers())
    rows = measured.measurements.filter(pl.col("metric").is_in(SHARPNESS_METRICS))
    assert measured.measurements.join(rows, on=["trial_id", "step", "metric"], how="anti").equals(finished.measurements)
    assert finished.tables.sharpness.is_empty()
    table = measured.tables.sharpness
    assert table["sharpness"].to_numpy() == pytest.approx(max(NoisyQuadratic().curvatures), rel=1e-4)
    start = table.filter(fraction=0)
    assert start["product"].to_numpy() == pytest.approx(start["learning_rate"].to_numpy(), rel=1e-4)
    end = table.filter(fraction=1)
    updates = end["step"].to_numpy()
    lowered = 2.0 ** -(20 * (updates - 1) // updates - 9)  # at the last update
    assert end["product"].to_numpy() == pytest.approx(end["learning_rate"].to_numpy() * lowered, rel=1e-4)
    assert len(read_folders([measured.folder]).sharpness) == len(table)  # as the command `claims` reads it
    with pytest.raises(sg.InputError, match=r"sharpness_at \(there none, here 0.0\)"):
        quietly(quadratic_study(sharpness_at=(0,)), finished.folder)


def test_a_folder_is_extended_by_training_only_what_is_new(tmp_path):
    small = {"batch_sizes": (16,), "learning_rates": (0.25, 0.5), "seeds": 2}
    first, _ = quietly(quadratic_study(**small), tmp_path / "s")
    assert first.ran.trained == 2 * 2 * 2
    larger = {"batch_sizes": (16, 32), "learning_rates": (0.25, 0.5, 1.0), "seeds": 3}
    second, _ = quietly(quadratic_study(**larger), tmp_path / "s")
    assert second.ran.trained == 2 * 2 * 3 * 3 - 8
    old = second.numbers().filter(pl.col("trial_id").is_in(first.trials["trial_id"].to_list()))
    assert old.equals(first.numbers())
    fresh, _ = quietly(quadratic_study(**larger), tmp_path / "t")
    assert fresh.numbers().equals(second.numbers())


def test_a_damaged_file_is_named_and_its_trials_trained_again(finished, tmp_path):
    small = {"batch_sizes": (16,), "learning_rates": (0.25,), "seeds": 2}
    before, _ = quietly(quadratic_study(**small), tmp_path / "s")
    (path,) = (tmp_path / "s" / "trials").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    after, said = quietly(quadratic_study(**small), tmp_path / "s")
    assert f"{path} is damaged: it was set aside, and its trials are trained again." in said
    assert after.numbers().equals(before.numbers())
    assert (tmp_path / "s" / "damaged" / path.name).exists()


@pytest.fixture
def out_of_memory(monkeypatch):
    """Within it no batch of 64 fits in memory."""

    @contextlib.contextmanager
    def small_memory():
        real = PackedBackend.start

        def start(self, trials):
            if trials[0].batch_size == 64:
                raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nallocating\n  4 EiB")
            return real(self, trials)

        with monkeypatch.context() as patch:
            patch.setattr(PackedBackend, "start", start)
            yield

    return small_memory


def test_trials_that_fail_are_recorded_and_tried_again(tmp_path, out_of_memory):
    study = quadratic_study(learning_rates=(0.5,), batch_sizes=(32, 64), seeds=2)
    with out_of_memory():
        result, said = quietly(study, tmp_path / "s")
    assert result.ran.failed == 4
    assert dict(result.trials["status"].value_counts().iter_rows()) == {"failed": 4, "complete": 4}
    assert (
        "4 trials at batch size 64 failed: RESOURCE_EXHAUSTED: out of memory … 4 EiB; a smaller microbatch_size" in said
    )
    assert not result.finished
    result.save_report(tmp_path / "page.html")
    result, _ = quietly(study, tmp_path / "s")
    assert result.ran.trained == 4
    assert (result.trials["status"] == "complete").all()
    assert result.finished


def test_a_failed_trial_keeps_its_traceback_and_a_defect_of_ours_is_none(tmp_path, out_of_memory, monkeypatch):
    study = quadratic_study(learning_rates=(0.5,), batch_sizes=(32, 64), seeds=2)
    with out_of_memory():
        result, said = quietly(study, tmp_path / "s")
        with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
            train_study(study, tmp_path / "debug", Console(quiet=True), debug=True)
    for error in result.trials.filter(status="failed")["error"]:
        (name,) = re.findall(r"\(traceback: (errors/.*\.txt)\)", error)
        assert name in said
        kept = (tmp_path / "s" / name).read_text()
        assert "4 EiB" in kept
        assert "in start" in kept
    monkeypatch.setattr("sgdscope.engine.run.Checkpoints.trials", lambda self: self.no_such_name)
    monkeypatch.setattr(PackedBackend, "start", lambda self, trials: 1 / 0)
    with pytest.raises(AttributeError):
        quietly(study, tmp_path / "t")


def test_a_batch_size_that_fails_does_not_hold_up_the_others(tmp_path, out_of_memory):
    study = quadratic_study(batch_sizes=(16, 64), seeds=2)
    with out_of_memory():
        result, _ = quietly(study, tmp_path / "s")
    assert set(result.optima["batch_size"]) == {16}
    assert set(result.trials.filter(batch_size=64)["status"]) == {"failed"}
    mended, _ = quietly(study, tmp_path / "s")
    never, _ = quietly(study, tmp_path / "t")
    assert mended.finished
    assert mended.numbers().equals(never.numbers())


def test_one_seed_is_enough_to_run_and_shows_no_interval(tmp_path):
    result, _ = quietly(quadratic_study(seeds=1, batch_sizes=(8, 16, 32, 64)), tmp_path / "s")
    assert result.finished
    assert result.optima["test_score_high"].is_infinite().all()
    result.save_report(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Infinity" not in page.split('id="data">')[1].split("</script>")[0]
    assert "One seed gives no interval" in page
    assert "[−∞, ∞]" in page
    assert not re.search(r"(±|÷|\[|,|−|-) ?inf\b", page)


def test_a_batch_size_that_only_failed_may_get_microbatches(tmp_path, out_of_memory):
    study = quadratic_study(learning_rates=(0.5,), batch_sizes=(32, 64), seeds=2)
    with out_of_memory():
        first, _ = quietly(study, tmp_path / "s")
    smaller = replace(study, microbatch_size=32)
    second, _ = quietly(smaller, tmp_path / "s")
    assert second.finished
    assert second.ran.trained == 4
    assert second.trials.filter(batch_size=32).equals(first.trials.filter(batch_size=32))
    with pytest.raises(sg.InputError, match=r"microbatch size of batch size 32 \(there 32, here 16\)"):
        quietly(replace(study, microbatch_size=16), tmp_path / "s")


def test_devices_that_are_not_there_are_refused_before_the_folder_is_touched(tmp_path):
    with pytest.raises(sg.InputError, match="devices_per_trial: 3 does not divide the 2 devices"):
        quietly(quadratic_study(batch_sizes=(48,), devices_per_trial=3), tmp_path / "s")
    assert not (tmp_path / "s" / "study.json").exists()


def test_what_a_killed_process_left_over_is_cleared_away(tmp_path):
    study = quadratic_study(learning_rates=(0.5,), batch_sizes=(32,), seeds=2)
    result, _ = quietly(study, tmp_path / "s")
    left = [
        tmp_path / "s" / "checkpoints" / f"{result.trials['trial_id'][0]}.aaaaaaaa.bbbbbbbbbbbbbbbb.npz",
        tmp_path / "s" / "trials" / f"{'a' * 16}.{'b' * 16}.parquet.123.part",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    quietly(study, tmp_path / "s")
    assert not any(path.exists() for path in left)


def test_a_commit_that_vanished_is_trained_again_and_said_and_its_copy_is_ignored(tmp_path):
    study = quadratic_study(learning_rates=(0.5,), batch_sizes=(32, 64), seeds=2)
    before, _ = quietly(study, tmp_path / "s")
    path = min((tmp_path / "s" / "trials").iterdir())
    path.rename(path.with_name(f"{path.stem} (conflicted copy){path.suffix}"))
    after, said = quietly(study, tmp_path / "s")
    assert after.ran.trained == 4
    assert f"Commit {path.name[:16]} lacks a file" in said
    assert f"ignored: {path.parent / path.stem} (conflicted copy).parquet." in said
    assert after.numbers().equals(before.numbers())
    assert quietly(study, tmp_path / "s")[0].ran.trained == 0


def test_a_folder_of_something_else_is_refused_from_python_too(tmp_path):
    (tmp_path / "film.part").write_text("mine")
    study = quadratic_study(learning_rates=(0.5,), batch_sizes=(32,), seeds=2)
    with pytest.raises(sg.InputError, match=r"holds no study but other files, such as 'film\.part'; name a new folder"):
        quietly(study, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["film.part"]
    with pytest.raises(sg.InputError, match="names no folder"):
        quietly(study, "")


def test_a_folder_begun_by_an_earlier_version_goes_on_with_one_notice(tmp_path):
    """Its fingerprints are of another form, and were another in a terminal than in a pipe."""
    study, folder = quadratic_study(batch_sizes=(4,), learning_rates=(0.1,), seeds=2), tmp_path / "study"
    quietly(study, folder)
    programs, notice = folder / "programs.json", "compares it from the next run on"
    ((key, fingerprint),) = json.loads(programs.read_text()).items()
    old = {re.sub("form [0-9]+", "form 2", key): "0123456789abcdef"}
    programs.write_text(json.dumps(old))
    result, said = quietly(replace(study, seeds=3), folder)
    assert (result.ran.trained, said.count(notice)) == (2, 1)  # one seed more of either optimizer
    assert json.loads(programs.read_text()) == old | {key: fingerprint}
    assert notice not in quietly(replace(study, seeds=4), folder)[1]


def test_a_changed_workload_is_refused_before_the_folder_is_touched(finished):
    declared = (finished.folder / "study.json").read_text()
    plain = NoisyQuadratic().workload()
    changed = replace(plain, loss=lambda theta, state, batch: 2 * plain.loss(theta, state, batch))
    with pytest.raises(sg.InputError, match="functions compute something else"):
        quietly(quadratic_study(workloads=changed, seeds=9), finished.folder)
    assert (finished.folder / "study.json").read_text() == declared


def test_cells_in_which_everything_diverged_are_named(tmp_path):
    study = quadratic_study(batch_sizes=(16, 32), learning_rates=(0.25, 1e30), seeds=2, optimizers=(sg.SGD(),))
    result, _ = quietly(study, tmp_path / "s")
    assert not any("can be the best" in sentence for sentence in sentences(result.tables))
    only = quadratic_study(batch_sizes=(16,), learning_rates=(1e30,), seeds=2, optimizers=(sg.SGD(),))
    result, _ = quietly(only, tmp_path / "t")
    said = "sgd at batch size 16: no learning rate tried can be the best, because 2 of 2 trials failed to train."
    assert sentences(result.tables)[-1] == said
    with pytest.raises(sg.InputError, match="too many trials diverged at every learning rate"):
        result.save_report(tmp_path / "page.html")


def test_few_seeds_do_not_search_for_ever(tmp_path):
    result, _ = quietly(quadratic_study(seeds=2), tmp_path / "s")
    assert result.finished
    assert result.optima["rates"].max() < 20


def test_a_negative_loss_is_refused_with_what_would_do(tmp_path):
    plain = NoisyQuadratic().workload()
    negative = replace(plain, loss=lambda theta, state, batch: plain.loss(theta, state, batch) - 100)
    with pytest.raises(sg.InputError, match="add a constant to the loss so that it cannot be negative"):
        quietly(quadratic_study(workloads=negative, batch_sizes=(16,)), tmp_path / "s")


def test_a_plan_counts_what_remains(finished, tmp_path):
    study = quadratic_study(learning_rates=(0.25, 0.5), batch_sizes=(4, 16), seeds=3)
    plan = sg.plan(study)
    assert (plan.cells, plan.trials) == (4, 24)
    assert plan.updates == 2 * 2 * 3 * (64 + 16)
    assert plan.examples == 24 * 256
    assert plan.seconds > 0
    done = sg.plan(quadratic_study(), finished.folder)
    assert done.trials == done.seconds == 0


# ── Several workloads and budgets ────────────────────────────────────────────────────────────────────────


def test_workloads_and_budgets_are_each_what_they_are_alone(tmp_path, monkeypatch):
    """One trainer at a time, and the numbers of the studies of one workload and one budget."""
    plain = NoisyQuadratic().workload()
    workloads = (plain, replace(plain, name="other"))
    budgets = (sg.Epochs(1), sg.Steps(8))
    common = {"batch_sizes": (16,), "learning_rates": (0.25, 0.5), "seeds": 2}
    happened, alive = [], []
    for moment in ("__init__", "close"):
        real = getattr(PackedBackend, moment)

        def noted(self, *arguments, real=real, moment=moment, **named):
            if moment == "__init__":
                assert all(trainer() is None for trainer in alive)  # its data have left the devices
                alive.append(weakref.ref(self))
            real(self, *arguments, **named)
            happened.append((self.workload.name, moment))

        monkeypatch.setattr(PackedBackend, moment, noted)
    result, said = quietly(quadratic_study(workloads=workloads, budgets=budgets, **common), tmp_path / "all")
    assert happened == [(name, moment) for name in ("quadratic", "other") for moment in ("__init__", "close")]
    assert result.finished
    assert result.ran.trained == len(result.trials) == 2 * 2 * 2 * 2 * 2
    assert "0 of about 32 trials" in said
    # One figure would mix them; each has figures of its own.
    names = [
        f"{name}-{budget}-score-by-learning-rate"
        for name in ("quadratic", "other")
        for budget in ("epochs-1", "steps-8")
    ]
    drawn = [json.dumps(result.figures[name].to_dict()["datasets"]) for name in names]
    assert len(set(drawn)) == 2 * 2
    # Each cell has a row of its own, named by all that the study has several of.
    rows = summary_rows(result.tables)
    assert len({row[:4] for row in rows}) == len(rows) == 2 * 2 * 2
    best = result.optima.filter(workload="other", budget="steps:8", optimizer="sgd", criterion="train_loss")
    (loss,) = [row[6] for row in rows if row[:3] == ("other", "steps:8", "sgd")]
    assert loss.startswith(f"{best['train_loss'][0]:.2g} ")
    alone = [
        quietly(quadratic_study(workloads=w, budgets=b, **common), tmp_path / f"{w.name}{b}")[0].numbers()
        for w in workloads
        for b in budgets
    ]
    assert pl.concat(alone).sort("trial_id").equals(result.numbers().sort("trial_id"))


def test_an_unlimited_budget_ends_and_its_table_says_where(tmp_path):
    """The loss of the quadratic falls with every doubling; two doublings reach the ceiling."""
    budget = sg.Unlimited(1, 4)
    common = {"batch_sizes": (16,), "learning_rates": (0.25, 0.5), "seeds": 3, "optimizers": (sg.SGD(),)}
    result, _ = quietly(quadratic_study(budgets=budget, **common), tmp_path / "s")
    assert result.finished
    (record,) = result.declaration.workloads
    score, loss = saturation(result.trials, {record.name: record}, budget).rows(named=True)
    tried = [1.0, 2.0, 4.0][: result.trials["budget"].n_unique()]
    for row in (score, loss):
        assert row["epochs_tried"] == tried[-1]
        assert row["n"] == 3
        assert row["ceiling_reached"] == (row["saturated_at"] is None)
    again, _ = quietly(quadratic_study(budgets=budget, **common), tmp_path / "s")
    assert again.ran.trained == 0
    plain, _ = quietly(quadratic_study(budgets=(budget, sg.Epochs(2)), **common), tmp_path / "s")
    assert plain.ran.trained == 0


def test_a_folder_grows_by_budgets_and_workloads(tmp_path):
    common = {"batch_sizes": (16,), "learning_rates": (0.25, 0.5), "seeds": 2}
    quietly(quadratic_study(**common), tmp_path / "s")
    plain = NoisyQuadratic().workload()
    more = quadratic_study(
        workloads=(plain, replace(plain, name="other")), budgets=(sg.Epochs(1), sg.Epochs(2)), **common
    )
    plan = sg.plan(more, tmp_path / "s")
    assert (plan.cells, plan.trials) == (6, 24)
    result, _ = quietly(more, tmp_path / "s")
    assert result.ran.trained == 24
    assert len(result.trials) == 32
    again, said = quietly(quadratic_study(**common), tmp_path / "s")
    assert again.ran.trained == 0
    assert "s also holds workloads other; budgets epochs:2. All is kept" in " ".join(said.split())
    assert again.declaration == result.declaration


@pytest.mark.parametrize(
    ("changes", "trained", "kept"),
    [
        ({"budgets": sg.Epochs(2)}, 4, "budgets epochs:1"),
        ({"batch_sizes": 32}, 4, "batch_sizes 16"),
        ({"optimizers": sg.SGD(0.5)}, 4, "optimizers sgd"),
        ({"learning_rates": 1.0}, 2, "learning_rates 0.25, 0.5"),
        ({"workloads": replace(NoisyQuadratic().workload(), name="other")}, 4, "workloads quadratic"),
        ({"seeds": 1}, 0, "2 seeds, of which 1 are asked for"),
        ({"seeds": 3}, 2, None),
        ({"seeds": 1, "budgets": sg.Epochs(2)}, 4, "budgets epochs:1; 2 seeds, of which 1 are asked for"),
    ],
)
def test_what_is_asked_alone_is_added_to_what_the_folder_holds(changes, trained, kept, tmp_path):
    common = {"batch_sizes": (16,), "learning_rates": (0.25, 0.5), "seeds": 2, "optimizers": sg.SGD()}
    first, _ = quietly(quadratic_study(**common), tmp_path / "s")
    assert sg.plan(quadratic_study(**(common | changes)), tmp_path / "s").trials == trained
    assert Store(tmp_path / "s").declaration() == first.declaration  # a plan changes nothing
    second, said = quietly(quadratic_study(**(common | changes)), tmp_path / "s")
    assert second.ran.trained == trained
    assert len(second.trials) == 4 + trained
    kept_rows = second.numbers().filter(pl.col("trial_id").is_in(first.trials["trial_id"].to_list()))
    assert kept_rows.equals(first.numbers())
    assert ("also holds" in said) == (kept is not None)
    assert kept is None or f"also holds {kept}. All is kept" in " ".join(said.split())


@pytest.mark.parametrize(
    ("before", "asked", "after", "said"),
    [
        (None, 0.004, 0.004, "the score margin was not declared and is 0.004 from now on"),
        (0.004, 0.01, 0.01, "the score margin was 0.004 and is 0.01 from now on"),
        (0.004, None, 0.004, None),
        (0.004, 0.004, 0.004, None),
    ],
)
def test_a_margin_is_of_the_verdicts_and_changes_no_trial(before, asked, after, said, tmp_path):
    common = {"batch_sizes": (16,), "learning_rates": (0.25, 0.5), "seeds": 2}
    first, _ = quietly(quadratic_study(score_margin=before, **common), tmp_path / "s")
    assert sg.plan(quadratic_study(score_margin=asked, **common), tmp_path / "s").trials == 0
    again, text = quietly(quadratic_study(score_margin=asked, **common), tmp_path / "s")
    assert again.ran.trained == 0
    assert again.numbers().equals(first.numbers())
    assert again.declaration.score_margin == again.tables.score_margin == after
    assert ("score margin" in text) == (said is not None)
    assert said is None or said in " ".join(text.split())


def test_what_does_not_go_together_is_refused_and_changes_nothing(tmp_path):
    common = {"batch_sizes": (16,), "learning_rates": (0.25, 0.5), "seeds": 2}
    first, _ = quietly(quadratic_study(**common), tmp_path / "s")
    small = replace(NoisyQuadratic(examples=8).workload(), name="small")
    with pytest.raises(
        sg.InputError, match=r"does not go together with this one: batch_sizes: 16 is larger than the tr"
    ):
        quietly(quadratic_study(**(common | {"workloads": small, "batch_sizes": 8})), tmp_path / "s")
    with pytest.raises(sg.InputError, match=r"learning_rates \(there 0.25, 0.5, here none\)"):
        quietly(quadratic_study(**(common | {"learning_rates": ()})), tmp_path / "s")
    assert Store(tmp_path / "s").declaration() == first.declaration


def test_a_plan_of_what_is_finished_traces_and_times_nothing_and_another_does_once(finished, monkeypatch):
    calls = Counter()

    def counted(owner, name):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given: calls.update([name]) or plain(*given))

    counted(Workload, "record")
    counted(traced, "trace")
    counted(traced, "operations")
    counted(Costs, "probe")
    assert sg.plan(quadratic_study(), finished.folder).trials == 0
    assert calls == {"record": 1}
    assert sg.plan(quadratic_study(seeds=7), finished.folder).expansion.startswith("study       quadratic")
    assert calls == {"record": 2, "trace": 1, "operations": 1 + 3, "probe": 1}  # of a gradient and three splits


# ── Killed at any moment ─────────────────────────────────────────────────────────────────────────────────


# Dies as the named file of its folder is about to be renamed into place: the hardest moments, and always the same.
DYING = """
import os, signal, sys
kind, left, real = sys.argv[1], int(sys.argv[2]), os.replace
def replace(aside, path):
    global left
    left -= os.path.basename(os.path.dirname(path)) == kind
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(aside, path)
os.replace = replace
from sgdscope.cli import main
sys.exit(main(sys.argv[3:]))
"""


def test_a_study_killed_again_and_again_ends_as_one_that_never_was(study_file, command, tmp_path):
    small = study_file.read_text().replace("seeds=3", "seeds=2").replace("(64, 256)", "(64,)").replace("sg.SGD(), ", "")
    study_file.write_text(small)
    folder, cache = tmp_path / "killed", tmp_path / "cache"
    environment = os.environ | {"SGDSCOPE_CACHE_DIR": str(cache)}
    silent = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = ["run", str(study_file), "--out", str(folder)]

    process = subprocess.Popen([sys.executable, "-m", "sgdscope.cli", *run], **silent)
    while process.poll() is None and not list(cache.glob("programs/*/*")):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
    process.kill()  # inside the compilation cache
    assert process.wait() == -signal.SIGKILL
    for kind, count in (("measurements", "1"), ("trials", "2")):
        died = subprocess.run([sys.executable, "-c", DYING, kind, count, *run], **silent)
        assert died.returncode == -signal.SIGKILL
        assert list(folder.glob(f"{kind}/*.part"))
    assert len(list(folder.glob("trials/*.parquet"))) == 1
    done = command(*run, SGDSCOPE_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    killed, (never, _) = sg.Result(folder), quietly(sg.studies.get(study_file), tmp_path / "whole")
    assert killed.numbers().equals(never.numbers())
    assert killed.measurements.equals(never.measurements)
    assert killed.correctness.equals(never.correctness)
    assert killed.finished


def test_killed_between_the_last_evaluation_and_the_commit_the_bits_are_made_again(tmp_path, monkeypatch):
    study = sg.Study(
        name="s", workloads=digits(hidden=16), batch_sizes=(64,), budgets=sg.Steps(20), seeds=2, optimizers=(sg.SGD(),),
        learning_rates=(0.125, 1e30),
    )  # fmt: skip
    never, _ = quietly(study, tmp_path / "never")
    complete = never.trials.filter(pl.col("status") == "complete")
    assert never.correctness.select("trial_id", "split", "examples").rows() == [
        (trial, split, n) for trial in sorted(complete["trial_id"]) for split, n in (("test", 517), ("validation", 256))
    ]
    right = correct(never.correctness, complete["trial_id"].to_list(), "test")
    np.testing.assert_allclose(right.mean(axis=1), complete["test_score"], rtol=1e-6)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", lambda *tables: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quietly(study, tmp_path / "killed")
    assert list((tmp_path / "killed" / "checkpoints").iterdir())
    again, _ = quietly(study, tmp_path / "killed")
    assert again.numbers().equals(never.numbers())
    assert again.correctness.equals(never.correctness)


OFTEN = """
import sys
from sgdscope.training import loop
loop.CHECKPOINT_SECONDS, loop.SEGMENT_SECONDS = 0.0, 0.0
from sgdscope.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_trial_killed_in_its_midst_goes_on_from_its_checkpoint_to_the_same_bits(study_file, command, tmp_path):
    """Killed while the first pack trains, with nothing committed but checkpoints."""
    changes = {"seeds=3": "seeds=2, learning_rates=(0.125,)", "(64, 256)": "(32,)", "Epochs(2)": "Epochs(4)"}
    text = study_file.read_text()
    for old, new in changes.items():
        text = text.replace(old, new)
    study_file.write_text(text)
    killed, never = tmp_path / "killed", tmp_path / "never"
    process = subprocess.Popen(
        [sys.executable, "-c", OFTEN, "run", str(study_file), "--out", str(killed)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list(killed.glob("checkpoints/*.npz"))) < 1:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert sg.Result(killed).trials.is_empty()
    done = command("run", study_file, "--out", killed)
    assert done.returncode == 0, done.stderr
    assert not list(killed.glob("checkpoints/*"))
    quietly(sg.studies.get(study_file), never)
    assert sg.Result(killed).numbers().equals(sg.Result(never).numbers())
    assert sg.Result(killed).measurements.equals(sg.Result(never).measurements)
    assert len(sg.Result(never).correctness) == 2 * len(sg.Result(never).trials)
    assert sg.Result(killed).correctness.equals(sg.Result(never).correctness)


# ── For a time, and until questions are decided ──────────────────────────────────────────────────────────────


def test_a_run_for_a_time_stops_with_all_committed_and_goes_on_to_the_same_study(finished, tmp_path, monkeypatch):
    """The clock moves on by a second with every look at it."""
    clock, trained = itertools.count(), []
    monkeypatch.setattr(sgdscope.engine.run, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    console = Console(file=io.StringIO())
    for _ in range(100):
        result = sg.run(quadratic_study(), tmp_path / "s", console, seconds=12)
        trained.append(result.ran.trained)
        assert len(result.trials) == sum(trained)
        if not result.ran.out_of_time:
            break
    assert len(trained) > 2
    assert result.finished
    assert_frame_equal(result.numbers(), finished.numbers())


def test_no_time_trains_nothing_and_says_so(tmp_path):
    result = sg.run(quadratic_study(), tmp_path / "s", Console(file=io.StringIO()), seconds=1e-9)
    assert result.ran.out_of_time
    assert result.trials.is_empty()


def test_a_run_until_questions_are_decided_adds_seeds_at_looks_and_again_trains_nothing(tmp_path, monkeypatch):
    looks = [sg.SeedsAt("sgd", 16, sg.Seeds(2, 2, 4)), sg.SeedsAt("sgd", 16, sg.Seeds(2, 2, 6))]

    def raised(declaration, tables):
        assert tables.finished
        at = Seeds.of(declaration.seeds_at[0].seeds if declaration.seeds_at else declaration.seeds)
        return tuple(look for look in looks if look.seeds.best > at.best)[:1]

    monkeypatch.setattr(sgdscope.advice.until_decided, "raised", raised)
    study = quadratic_study(batch_sizes=(4, 16), learning_rates=(0.125, 0.25), seeds=2)
    console = Console(file=io.StringIO())
    result = sg.run(study, tmp_path / "s", console, until_decided=True)
    assert result.finished
    assert result.declaration.seeds_at == (looks[1],)
    assert len(result.trials) == result.ran.trained == 2 * 2 * 2 * 2 + 4
    again = sg.run(study, tmp_path / "s", console, until_decided=True)
    assert again.ran.trained == 0
    assert again.declaration == result.declaration
    assert_frame_equal(again.numbers(), result.numbers())
