import contextlib
import errno
import os
import shutil

import polars as pl
import pytest

from sgdscope.budget import Epochs
from sgdscope.errors import InputError
from sgdscope.store import CORRECTNESS_SCHEMA, MEASUREMENTS_SCHEMA, TRIALS_SCHEMA, Store
from sgdscope.study import Study
from sgdscope.workloads.quadratic import NoisyQuadratic


def declaration(**changes):
    plain = {"name": "s", "workloads": NoisyQuadratic().workload(), "batch_sizes": (1,), "budgets": Epochs(1)}
    return Study(**(plain | changes)).declaration()


@pytest.fixture
def tables(trial_row):
    def make(*ids, status="complete"):
        trials = pl.DataFrame([trial_row(trial_id=i, status=status) for i in ids], schema=TRIALS_SCHEMA)
        rows = [{"trial_id": i, "step": 1, "examples": 1, "split": "test", "metric": "loss", "value": 0.1} for i in ids]
        bits = [{"trial_id": i, "split": "test", "examples": 3, "bits": b"\xa0"} for i in ids if status == "complete"]
        return (
            trials,
            pl.DataFrame(rows, schema=MEASUREMENTS_SCHEMA),
            pl.DataFrame(bits, schema=CORRECTNESS_SCHEMA),
        )

    return make


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "study")
    with store.writing():
        store.declare(declaration())
    return store


def ids(store):
    contents = store.read()
    assert sorted(contents.trials["trial_id"]) == sorted(contents.measurements["trial_id"])
    assert sorted(contents.trials["trial_id"]) == sorted(contents.correctness["trial_id"])
    return sorted(contents.trials["trial_id"])


def test_what_is_committed_is_read_back_and_committing_again_counts_once(store, tables):
    store.commit(*tables("a", "b"))
    store.commit(*tables("c"))
    store.commit(*tables("a", "b"))
    assert ids(store) == ["a", "b", "c"]


def test_a_commit_cut_off_at_any_file_is_absent_or_whole(store, tables, tmp_path, monkeypatch):
    """Every prefix of a commit's system calls leaves a folder that reads as before or as after."""
    store.commit(*tables("a"))
    outcomes = set()
    for cut in range(18):
        folder = tmp_path / f"cut{cut}"
        shutil.copytree(store.folder, folder)
        calls = iter(range(100))
        real_open, real_rename, real_fsync = os.open, os.rename, os.fsync

        def dies(real, calls=calls, cut=cut):
            def call(*args, **kwargs):
                if next(calls) >= cut:
                    raise KeyboardInterrupt
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", dies(real_fsync))
            patch.setattr("os.rename", dies(real_rename))
            patch.setattr("os.open", dies(real_open))
            with contextlib.suppress(KeyboardInterrupt):
                Store(folder).commit(*tables("b", "c"))
        found = ids(Store(folder))
        assert found in (["a"], ["a", "b", "c"])
        outcomes.add(len(found))
        Store(folder).commit(*tables("b", "c"))
        assert ids(Store(folder)) == ["a", "b", "c"]
    assert outcomes == {1, 3}


@pytest.mark.parametrize("kind", ["trials", "measurements", "correctness"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damage_anywhere_is_found_named_and_set_aside(store, tables, kind, damage):
    store.commit(*tables("a"))
    store.commit(*tables("b"))
    (path, _) = sorted((store.folder / kind).iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flip": content, "truncate": content[:-9], "empty": b""}[damage])
    contents = store.read()
    assert contents.damaged == [path]
    assert len(contents.trials) == 1
    store.set_aside(contents.damaged)
    assert store.read().damaged == []
    assert (store.folder / "damaged" / path.name).exists()
    assert len(ids(store)) == 1


def test_a_folder_from_before_correctness_was_kept_is_read_and_extended(store, tables):
    store.commit(*tables("a", "b"))
    shutil.rmtree(store.folder / "correctness")
    contents = store.read()
    assert contents.damaged == []
    assert len(contents.trials) == 2
    assert contents.correctness.schema == pl.Schema(CORRECTNESS_SCHEMA)
    assert contents.correctness.is_empty()
    store.commit(*tables("c"))
    contents = store.read()
    assert sorted(contents.trials["trial_id"]) == ["a", "b", "c"]
    assert contents.correctness.rows() == [("c", "test", 3, b"\xa0")]


def test_a_failure_gives_way_to_an_outcome_in_either_order(store, tables):
    store.commit(*tables("a", "b", status="failed"))
    store.commit(*tables("a"))
    trials = store.read().trials
    assert dict(trials.select("trial_id", "status").iter_rows()) == {"a": "complete", "b": "failed"}


def test_a_second_writer_is_told_and_stopped(store):
    with store.writing(), pytest.raises(InputError, match="is being written by another process"):
        Store(store.folder).writing().__enter__()
    with store.writing():
        pass


def test_another_study_is_refused_and_an_extension_taken(store):
    with pytest.raises(
        InputError, match=r"holds another study, which differs in budgets \(there epochs:1, here epochs:2"
    ):
        store.declare(declaration(budgets=Epochs(2)))
    store.declare(declaration(seeds=9))
    assert store.declaration().seeds == 9


def test_a_full_disk_is_told_and_leaves_what_was_committed(store, tables, monkeypatch):
    store.commit(*tables("a"))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(InputError, match="the disk is full; what was committed before is valid"):
            store.commit(*tables("b"))
    assert ids(store) == ["a"]
    assert not list(store.folder.rglob("*.part"))


def test_folders_that_cannot_be_are_refused(tmp_path, store):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"), Store(tmp_path / "file" / "study").writing():
        pass
    with pytest.raises(InputError, match="holds no study"):
        Store(tmp_path).declaration()
    (store.folder / "study.json").write_text("{")
    with pytest.raises(InputError, match=r"study.json is damaged"):
        store.declaration()


def test_a_changed_program_under_the_same_name_is_refused(store):
    store.check_program("0.10.0", "workload w", "abc")
    store.check_program("0.10.0", "workload w", "abc")
    store.check_program("0.11.0", "workload w", "def")
    with pytest.raises(InputError, match="workload 'w': its functions compute something else"):
        store.check_program("0.11.0", "workload w", "abc")
    store.check_program("0.11.0", "workload another", "abc")
    (store.folder / "programs.json").write_text("{")
    with pytest.raises(InputError, match=r"programs.json is damaged"):
        store.check_program("0.11.0", "workload w", "abc")
