import contextlib
import errno
import itertools
import os
import shutil
import stat
from pathlib import Path

import polars as pl
import pytest

from sgdscope.budget import Epochs
from sgdscope.errors import InputError
from sgdscope.store import CORRECTNESS_SCHEMA, MEASUREMENTS_SCHEMA, TRIALS_SCHEMA, Store
from sgdscope.study import Study
from sgdscope.testing.quadratic import NoisyQuadratic


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


def test_of_two_that_trained_a_trial_the_first_commit_counts(store, tables):
    """Whatever the names of the commits, and however many others of their trials are the same."""
    others = Store(store.folder)
    contents = others.read()
    others.follow(contents)
    for first, second in itertools.pairwise(("ab", "bc", "cd", "de")):
        mine, late = tables(*first), tables(*second)
        store.commit(mine[0].with_columns(seconds=1.0), *mine[1:])
        assert others.commit(late[0].with_columns(seconds=2.0), *late[1:])["trial_id"].to_list() == [second[1]]
        assert others.news()["seconds"].unique().to_list() in ([1.0], [])
        assert store.news()["trial_id"].to_list() == [second[1]]
    seconds = dict(Store(store.folder).read().trials.select("trial_id", "seconds").iter_rows())
    assert seconds == {"a": 1.0, "b": 1.0, "c": 2.0, "d": 2.0, "e": 2.0}
    assert ids(store) == list("abcde")


def failed(tables, *names):
    """The tables of trials that failed: nothing was measured of them."""
    trials, measurements, correctness = tables(*names, status="failed")
    return trials, measurements.clear(), correctness.clear()


@pytest.mark.parametrize("before", ["measurements", "correctness", "trials", "all", "the end"])
@pytest.mark.parametrize("other", ["fails", "measures other bits", "is the same"])
def test_what_another_worker_commits_of_the_same_trials_harms_no_outcome(store, tables, before, other, monkeypatch):
    """Another takes the trials of a frozen worker over, and commits at any moment of the first one's commit."""
    theirs = failed(tables, "a", "b") if other == "fails" else tables("a", "b")
    if other == "measures other bits":
        theirs = (theirs[0], theirs[1].with_columns(value=pl.lit(0.2)), theirs[2])
    mine, taker, write, looks = tables("a", "b"), Store(store.folder), Store._write_table, []

    def interrupted(self, kind, name, content):
        if self is store and kind == before:
            taker.commit(*theirs)
        return write(self, kind, name, content)

    def late(skip_unreadable=False):
        looks.append(Store._look(taker, skip_unreadable=skip_unreadable))
        store.commit(*mine)  # after the taker has looked

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_write_table", interrupted)
        if before == "all":
            patch.setattr(taker, "_look", late)
            taker.commit(*theirs)
        else:
            store.commit(*mine)
        if before == "the end":
            taker.commit(*theirs)
    contents = Store(store.folder).read()
    assert ids(Store(store.folder)) == ["a", "b"]
    assert contents.trials["status"].to_list() == ["complete"] * 2
    assert contents.measurements["value"].n_unique() == 1  # of one worker, not of both
    assert not contents.damaged
    assert not contents.incomplete


def test_a_file_that_cannot_be_read_keeps_no_commit_from_being_written(store, tables):
    (store.folder / "trials" / f"{'0' * 16}.{'0' * 16}.parquet").mkdir(parents=True)
    assert len(store.commit(*tables("a"))) == 1
    assert ids(store) == ["a"]


def test_what_others_commit_is_news_once_and_a_damaged_file_is_none(store, tables):
    other = Store(store.folder)
    store.commit(*tables("a"))
    assert (other.news()["trial_id"].to_list(), len(other.news()), len(store.news())) == (["a"], 0, 0)
    store.commit(*tables("b", "c", status="failed"))
    assert sorted(other.news()["status"]) == ["failed", "failed"]
    other.commit(*tables("b", "c"))
    assert sorted(store.news()["status"]) == ["complete", "complete"]
    before = set((store.folder / "trials").iterdir())
    other.commit(*tables("d"))
    (path,) = set((store.folder / "trials").iterdir()) - before
    path.write_bytes(path.read_bytes()[:-1])
    assert store.news().is_empty()


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
        with pytest.raises(InputError, match=r"the disk is full\. What was committed before is valid"):
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


def test_fingerprints_of_an_earlier_form_are_told_from_those_of_this_one(store):
    store.check_program("jax 0.10.0, form 2", "workload w", "abc")
    assert store.has_earlier_form("form 3", "w")
    assert not store.has_earlier_form("form 3", "another")
    store.check_program("jax 0.10.0, form 3", "workload w", "def")
    store.check_program("jax 0.11.0, form 2", "workload w", "ghi")
    assert not store.has_earlier_form("form 3", "w")
    with pytest.raises(InputError, match="compute something else"):
        store.check_program("jax 0.10.0, form 3", "workload w", "abc")


def test_a_changed_program_under_the_same_name_is_refused(store):
    store.check_program("0.10.0", "workload w", "abc")
    store.check_program("0.10.0", "workload w", "abc")
    store.check_program("0.11.0", "workload w", "def")
    with pytest.raises(InputError, match="workload 'w': its functions compute something else") as raised:
        store.check_program("0.11.0", "workload w", "abc")
    assert "random number without a seed" in str(raised.value)
    store.check_program("0.11.0", "workload another", "abc")
    (store.folder / "programs.json").write_text("{")
    with pytest.raises(InputError, match=r"programs.json is damaged"):
        store.check_program("0.11.0", "workload w", "abc")


# ── Files that are not ours ──────────────────────────────────────────────────────────────────────────────

COPIES = ["{}(1){}", "{} (conflicted copy 2026-01-02){}", "._{}{}", "{}.sync-conflict-20260102-030405-ABCDEFG{}"]
COPIES += ["{} - Copy{}", "Copy of {}{}", "~${}{}", "{}{}.icloud", "{}{}~", "{} 2{}", "{}.orig{}"]


def copies(path):
    return [path.with_name(form.format(path.stem, path.suffix)) for form in COPIES]


@pytest.mark.parametrize("kind", ["trials", "measurements", "correctness"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_copy_beside_a_commit_is_named_and_changes_nothing(store, tables, kind, damaged):
    store.commit(*tables("a", "b"))
    before = store.read()
    (path,) = (store.folder / kind).iterdir()
    beside = copies(path)
    for copy in beside:
        copy.write_bytes(b"half" if damaged else path.read_bytes())
    contents = store.read()
    for name in ("trials", "measurements", "correctness"):
        assert getattr(contents, name).equals(getattr(before, name))
    assert contents.damaged == []
    assert contents.foreign == sorted(beside)
    (said,) = contents.notices("are trained again")
    assert str(min(beside)) in said
    assert f"and {len(beside) - 3} more" in said
    with store.writing():
        pass
    assert all(copy.exists() for copy in beside)


def test_a_commit_copied_under_a_name_of_our_form_counts_once(store, tables):
    store.commit(*tables("a", "b"))
    store.commit(*tables("c", status="failed"))
    for kind in ("trials", "measurements", "correctness"):
        for path in list((store.folder / kind).iterdir()):
            shutil.copy(path, path.with_name(f"{'0' * 16}{path.name[16:]}"))
            shutil.copy(path, path.with_name(f"{'f' * 16}{path.name[16:]}"))
    contents = store.read()
    assert contents.trials["trial_id"].to_list() == ["a", "b", "c"]
    assert sorted(contents.measurements["trial_id"]) == ["a", "b", "c"]
    assert sorted(contents.correctness["trial_id"]) == ["a", "b"]


def test_a_truncated_copy_of_our_form_is_set_aside_alone(store, tables):
    store.commit(*tables("a", "b"))
    for kind in ("trials", "measurements", "correctness"):
        (path,) = (store.folder / kind).iterdir()
        path.with_name(f"{path.name[:16]}.{'0' * 16}.parquet").write_bytes(path.read_bytes()[:-9])
    contents = store.read()
    assert len(contents.damaged) == 3
    store.set_aside(contents.damaged)
    assert ids(store) == ["a", "b"]


def test_another_table_under_a_name_of_our_form_is_foreign(store, tables):
    store.commit(*tables("a"))
    (path,) = (store.folder / "trials").iterdir()
    shutil.copy(path, store.folder / "measurements" / path.name)
    (store.folder / "trials" / f"{'0' * 16}.{'1' * 16}.parquet").mkdir()
    os.mkfifo(store.folder / "trials" / f"{'0' * 16}.{'2' * 16}.parquet")
    contents = store.read()
    assert len(contents.foreign) == 3
    assert ids(store) == ["a"]


@pytest.mark.parametrize("kind", ["trials", "measurements"])
def test_trials_that_vanish_are_counted_unless_they_are_elsewhere(store, tables, kind, monkeypatch):
    """Also where two processes committed a trial in the same moment."""
    monkeypatch.setattr(Store, "_not_ended", lambda self, table, trials: table)
    store.commit(*tables("a", "b"))
    store.commit(*tables("c"))
    store.commit(*tables("b"))
    shutil.rmtree(store.folder / kind)
    contents = store.read()
    assert contents.trials.is_empty()
    assert sum(contents.incomplete.values()) == 4
    assert all("trials are trained again" in said for said in contents.notices("are trained again"))
    store.commit(*tables("a", "b", "c"))
    assert store.read().incomplete == {}


def test_only_our_own_unfinished_files_are_deleted(store, tables, tmp_path):
    store.commit(*tables("a"))
    name = f"{'a' * 16}.{'b' * 16}"
    ours = ["study.json.7.part", "programs.json.7.part", f"trials/{name}.parquet.7.part"]
    ours += [f"measurements/{name}.parquet.7.part", f"checkpoints/{'a' * 16}.aaaaaaaa.{'b' * 16}.npz.7.part"]
    theirs = [
        "film.mkv.part",
        "trials/thesis.iso.part",
        "trials/x.7.part",
        "mine/study.json.7.part",
        "notes.json.7.part",
    ]
    theirs += [f"damaged/{name}.parquet.7.part", f"{name}.parquet.7.part", "checkpoints/film.mkv.7.part"]
    for path in (*ours, *theirs):
        (store.folder / path).parent.mkdir(exist_ok=True)
        (store.folder / path).write_text("x")
    for folder in ("score.part", "trials/x.part", f"trials/{name}.parquet.8.part"):
        (store.folder / folder).mkdir()
    store.clear(store.unfinished())
    assert not any((store.folder / path).exists() for path in ours)
    assert all((store.folder / path).exists() for path in theirs)
    assert len(list(store.folder.rglob("*.part"))) == len(theirs) + 3


@pytest.mark.parametrize(
    "there",
    [
        "thesis.tex",
        "trials/thesis.tex",
        "measurements/notes.parquet",
        "film.part",
        "programs.json",
        "report.html",
        "photos/",
        "lock/",
        "studies",
    ],
)
def test_a_folder_that_is_used_for_something_else_is_refused_untouched(tmp_path, there):
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    if there.endswith("/"):
        path.mkdir()
    else:
        path.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=r"holds no study but other files, such as .*; name a new folder, for example"):
        Store(tmp_path).writing().__enter__()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "there",
    [
        [".DS_Store", "Thumbs.db"],
        [".git/config"],
        ["lock"],
        ["lock", "study.json.7.part"],
        ["lock", "programs.json", "study.json.7.part"],
        ["lock", "trials/.DS_Store"],
        [f"workers/{'a' * 16}.json", "leases/", "study.json.7.part"],
        ["trials/"],
        [f"checkpoints/{'a' * 16}.aaaaaaaa.{'b' * 16}.npz", f"measurements/{'a' * 16}.{'b' * 16}.parquet.7.part"],
    ],
)
def test_an_interrupted_start_and_what_a_system_leaves_are_no_hindrance(tmp_path, there):
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            (tmp_path / name).write_text("{}")
    with Store(tmp_path).writing():
        Store(tmp_path).declare(declaration())


def test_a_study_whose_declaration_was_moved_away_goes_on_beside_whatever_is_there(store, tables):
    store.commit(*tables("a"))
    (store.folder / "study.json").rename(store.folder / "study.json.old")
    (store.folder / "trials.csv").write_text("mine")
    with store.writing():
        store.declare(declaration())
    assert ids(store) == ["a"]


def test_an_empty_name_is_no_folder():
    for name in ("", " ", "a\0b"):
        with pytest.raises(InputError, match=r"names no folder; the current folder is '\.'"):
            Store(name)


# ── File systems as clusters have them ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES, errno.ENOSYS])
@pytest.mark.parametrize("files_too", [False, True])
def test_what_cannot_be_synchronised_is_written_and_told(store, tables, code, files_too, monkeypatch):
    real = os.fsync

    def no(descriptor):
        if files_too or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr("os.fsync", no)
    with store.writing() as notices:
        store.commit(*tables("a"))
    assert [os.strerror(code) in said for said in notices] == [True]
    assert ids(store) == ["a"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize(
    "kind", ["trials", "measurements", "correctness", "checkpoints", "study.json", "programs.json"]
)
def test_what_cannot_be_read_does_not_count_as_missing(store, tables, code, kind, monkeypatch):
    store.commit(*tables("a"))
    store.check_program("0.10.0", "workload w", "abc")
    (store.folder / "checkpoints").mkdir()
    (store.folder / "checkpoints" / f"{'a' * 16}.aaaaaaaa.{'b' * 16}.npz").write_text("x")
    real = os.open

    def no(path, *args, **how):
        if kind in str(path) and "." in Path(path).name:
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *args, **how)

    before = sorted(store.folder.rglob("*"))
    monkeypatch.setattr("os.open", no)

    def begins():
        with store.writing():
            store.check_declaration(declaration())
            store.check_program("0.10.0", "workload w", "abc")
            store.read()

    with pytest.raises(InputError, match=f"cannot be read: {os.strerror(code)}; make it readable"):
        begins()
    assert sorted(store.folder.rglob("*")) == before


@pytest.mark.parametrize("kind", ["trials", "study.json"])
def test_a_link_to_what_is_not_there_does_not_count_as_missing(store, tables, kind):
    store.commit(*tables("a"))
    path = next((store.folder / kind).iterdir()) if kind == "trials" else store.folder / "programs.json"
    path.unlink(missing_ok=True)
    path.symlink_to(store.folder / "nowhere")
    with pytest.raises(InputError, match=r"is a link to .*nowhere, which is not there"):
        store.read() if kind == "trials" else store.check_program("0.10.0", "workload w", "abc")


def test_links_to_files_and_folders_are_followed_and_stay(store, tables, tmp_path):
    store.commit(*tables("a"))
    for name in ("trials", "study.json"):
        (store.folder / name).rename(tmp_path / name)
        (store.folder / name).symlink_to(tmp_path / name)
    with store.writing():
        store.declare(declaration(seeds=9))
    store.commit(*tables("b"))
    assert ids(store) == ["a", "b"]
    assert '"seeds": 9' in (tmp_path / "study.json").read_text()
    assert (store.folder / "study.json").is_symlink()


@pytest.mark.parametrize("name", ["trials", "measurements", "correctness", "checkpoints", "damaged"])
def test_a_file_in_the_place_of_a_folder_is_told_before_anything_is_written(store, name):
    (store.folder / name).write_text("")
    with pytest.raises(InputError, match=f"{name} must be a folder, and is a file; move it away"):
        store.writing().__enter__()


def test_a_named_pipe_in_the_place_of_a_file_is_told_and_not_waited_for(store):
    path = store.folder / f"checkpoints/{'a' * 16}.aaaaaaaa.{'b' * 16}.npz"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(InputError, match="is not a file; move it away"):
        store.writing().__enter__()


@pytest.mark.parametrize("text", ["null", "3", '"x"', "[]", "{}", "{", "", '{"numerics": []}', "[" * 100_000, "\udcff"])
def test_a_declaration_that_is_none_is_damaged(store, text):
    (store.folder / "study.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"study\.json"):
        store.declaration()


@pytest.mark.parametrize("text", ["null", "3", '"x"', "[]", "{", "", "\udcff"])
def test_programs_that_are_none_are_damaged(store, text):
    (store.folder / "programs.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"programs\.json is damaged"):
        store.check_program("0.10.0", "workload w", "abc")
