"""Workers on one folder: leases, deaths, and whole studies that several train."""

import contextlib
import errno
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import sgdscope as sg
import sgdscope.engine.run
from sgdscope import atomic
from sgdscope.engine import workers
from sgdscope.engine.run import _Run
from sgdscope.engine.workers import Worker, WorkerInfo, this_worker, workers_of
from sgdscope.store import Store
from sgdscope.testing.quadratic import NoisyQuadratic
from sgdscope.training.packed import PackedBackend

ELSEWHERE = WorkerInfo("another machine", "1", "cpu × 1")
IDS = [f"{number:016x}" for number in range(12)]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "study")
    with store.writing():
        pass
    return store


@pytest.fixture
def join(store):
    """Register workers, whose hearts beat when a test says so."""
    left = []

    def joined(info=ELSEWHERE):
        worker = Worker(store, info)
        worker._heart = threading.Thread(target=lambda: None)
        left.append(worker.__enter__())
        return worker

    yield joined
    for worker in left:
        worker.__exit__(None, None, None)


def beat(*of, times=1):
    for _ in range(times):
        for worker in of:
            worker._write(lambda info: replace(info, beats=info.beats + 1))


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_want_a_trial_one_gets_it_and_a_free_one_is_found_again(join, links, monkeypatch):
    def no(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr("os.link", no)
    crew = [join() for _ in range(8)]
    start, got = threading.Barrier(8), [[] for _ in crew]

    def want(worker, mine):
        start.wait()
        for trial in IDS * 20:
            mine += worker.take(worker.free([trial]))

    threads = [threading.Thread(target=want, args=pair) for pair in zip(crew, got, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(trial for mine in got for trial in mine) == dict.fromkeys(IDS, 1)
    for worker, mine in zip(crew, got, strict=True):
        worker.release(mine)
    assert list(crew[0].free(IDS)) == IDS


def test_a_worker_knows_its_own_lease_where_the_answer_to_its_creation_was_lost(join, monkeypatch):
    worker, other = join(), join()
    real = os.link
    monkeypatch.setattr("os.link", lambda *paths: (real(*paths), real(*paths)))  # as a network file system repeats it
    assert worker.take(worker.free(IDS[:1])) == IDS[:1]
    assert other.take({IDS[0]: 0}) == []


def test_trials_of_a_worker_that_stands_still_are_taken_over_by_one_and_of_one_that_counts_by_none(join, store):
    frozen, slow, first, second = (join() for _ in range(4))
    frozen.take(frozen.free(IDS[:2]))
    slow.take(slow.free(IDS[2:3]))
    assert list(first.free(IDS[:4])) == IDS[3:4]  # what no worker trains comes first
    for _ in range(workers.BEATS_TO_DEATH):
        assert not first.free(IDS[:3])
        assert not second.free(IDS[:3])
        beat(slow, first, second)
    seen = first.free(IDS[:3]), second.free(IDS[:3])
    assert [list(free) for free in seen] == [IDS[:2], IDS[:2]]
    assert second.take(seen[1]) == IDS[:2]
    assert first.take(seen[0]) == []
    beat(frozen)  # it goes on, and finds that its trials were committed
    assert not frozen.free(IDS[:2])
    frozen.release(IDS[:2], ended=True)
    assert not first.free(IDS[:2])
    second.release(IDS[:2], ended=True)
    assert [path.name for path in (store.folder / "leases").iterdir()] == [f"{IDS[2]}.0"]


def test_a_worker_that_gives_up_what_it_took_over_leaves_it_to_the_next(join):
    dead, second, third = join(), join(), join()
    dead.take(dead.free(IDS[:1]))
    dead._path(dead.name).unlink()
    assert second.take(second.free(IDS[:1])) == IDS[:1]
    second.release(IDS[:1])
    assert third.free(IDS[:1]) == {IDS[0]: 1}


def test_a_worker_that_is_frozen_itself_takes_no_other_for_dead(join):
    alive, thawed = join(), join()
    alive.take(alive.free(IDS[:1]))
    assert not thawed.free(IDS[:1])
    beat(alive, times=3 * workers.BEATS_TO_DEATH)  # while the other's heart stood still
    beat(thawed)
    assert not thawed.free(IDS[:1])


def test_a_worker_that_died_between_a_lease_and_its_name_is_outlived(join, store):
    worker = join()
    (store.folder / "leases" / f"{IDS[0]}.0").touch()
    assert not worker.free(IDS[:1])
    beat(worker, times=workers.BEATS_TO_DEATH)
    assert worker.free(IDS[:1]) == {IDS[0]: 1}


def test_a_process_that_ended_on_this_machine_is_dead_at_once_and_one_that_runs_is_not(join, store):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    info = replace(ELSEWHERE, process=workers._process(process.pid) or "")
    if not info.process:
        process.kill()
        process.communicate()
        pytest.skip("this system does not tell processes apart")
    theirs, mine = join(info), join(this_worker("cpu", "1"))
    theirs.take(theirs.free(IDS))
    part = store.folder / "study.json.7.part"
    part.touch()
    assert mine.count == 2
    assert not mine.free(IDS)
    assert set(workers_of(store.folder)) == {theirs.name, mine.name}
    process.kill()  # not waited for: a zombie is dead too
    while workers._process(process.pid):
        os.sched_yield()
    assert list(mine.free(IDS)) == IDS
    process.communicate()
    assert set(workers_of(store.folder)) == {mine.name}
    assert part.exists()  # a worker that is alive may be writing it
    mine.__exit__(None, None, None)
    join()
    assert not part.exists()


@pytest.mark.skipif(not workers._process(os.getpid()), reason="this system does not tell processes apart")
@pytest.mark.parametrize("trouble", ["no file can be opened", "no permission", "another container", "another /proc"])
def test_a_worker_whose_process_cannot_be_seen_is_not_dead(join, trouble, monkeypatch):
    """Its process would be one of this machine that has ended, but for the trouble."""
    *place, _, _ = workers._process(os.getpid()).split()
    info = replace(ELSEWHERE, process=" ".join([*place, "4194999", "1"]))
    assert workers._is_gone(info)
    code = {"no file can be opened": errno.EMFILE, "no permission": errno.EACCES}.get(trouble)
    links = {"another container": {"/proc/self/ns/pid": "pid:[7]"}, "another /proc": {"/proc/self": "77"}}
    text, link = Path.read_text, Path.readlink

    def read_text(path, **how):
        if code and str(path) == "/proc/4194999/stat":
            raise OSError(code, os.strerror(code))
        return text(path, **how)

    def readlink(path):
        return Path(links.get(trouble, {}).get(str(path), link(path)))

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(Path, "readlink", readlink)
    theirs, mine = join(info), join()
    theirs.take(theirs.free(IDS))
    assert not mine.free(IDS)
    assert mine.count == 2


@pytest.mark.parametrize("process", ["", "7", "a b c d e", "a b c d e f g", "{place} one 1", "{place}"])
def test_what_another_version_tells_of_its_process_is_no_proof_that_it_ended(process):
    place = " ".join((workers._process(os.getpid()) or "").split()[:-2])
    assert not workers._is_gone(replace(ELSEWHERE, process=process.format(place=place)))


LATER = {"machine": "a later machine", "versions": "3", "device": "cpu × 1", "joined": True}


@pytest.mark.parametrize(
    ("told", "understood"),
    [
        (lambda count: LATER | {"beats": count, "mood": "good"}, True),
        (lambda count: LATER | {"pulse": count, "process": None}, True),
        (lambda count: {"who": "a later machine", "pulse": count}, False),
        (lambda count: [count], False),
    ],
)
def test_a_worker_of_another_version_lives_while_its_file_changes_and_is_refused(
    join, store, told, understood, monkeypatch
):
    worker, name, counts = join(), "0" * 16, iter(range(10**9))
    tell = lambda: atomic.replace(worker._path(name), json.dumps(told(next(counts))).encode(), synchronised=False)
    tell()
    (store.folder / "leases" / f"{IDS[0]}.0").write_text(name)
    for _ in range(2 * workers.BEATS_TO_DEATH):
        beat(worker)
        tell()
        assert not worker.free(IDS[:1])
    if understood:
        monkeypatch.setattr(workers, "SHORTEST_WAIT", 0.0)
        late = Worker(store, ELSEWHERE)
        late._heart = threading.Thread(target=lambda: [tell() for _ in iter(late._stopped.is_set, True)])
        with pytest.raises(sg.InputError, match="is being trained by a later machine with 3"):
            late.__enter__()
    assert not worker.free(IDS[:1])
    beat(worker, times=workers.BEATS_TO_DEATH)
    assert worker.free(IDS[:1]) == {IDS[0]: 1}


def test_what_killed_workers_left_is_swept_also_where_a_worker_is_always_alive(join, store, monkeypatch):
    monkeypatch.setattr(workers, "BEAT_SECONDS", 0.0)  # so that each look is a new one
    monkeypatch.setattr(workers, "LOOKS_A_SECOND", 1e9)
    alive = join()
    names = ("commands.json.7.part", f"workers/{'a' * 16}.json.8.part", f"leases/{IDS[0]}.0")
    left = [store.folder / name for name in names]
    foreign = store.folder / "thesis.tex.7.part"
    for path in (*left, foreign):
        path.write_text(alive.name)
    joined = join()
    written = store.folder / "study.json.9.part"
    written.touch()  # a worker that is alive writes this afterwards
    beat(alive, joined, times=workers.BEATS_TO_DEATH - 1)
    assert joined.count == 2
    assert all(path.exists() for path in left)
    beat(alive, joined)
    joined.sweep(IDS[:1])
    assert joined.count == 2
    assert not any(path.exists() for path in left)
    assert written.exists()
    assert foreign.exists()


@pytest.mark.parametrize("last", range(4))
def test_a_worker_that_is_killed_as_it_registers_or_ends_leaves_nothing_that_stays(join, store, last, monkeypatch):
    """After whichever of its changes to the folder of workers it dies, the next worker deletes what it left."""
    done = []

    def counted(plain):
        def call(*arguments, **how):
            if len(done) > last:
                raise KeyboardInterrupt  # from here on it does nothing any more
            done.append(plain(*arguments, **how))
            return done[-1]

        return call

    dead = Worker(store, ELSEWHERE)
    dead._heart = threading.Thread(target=lambda: None)
    with monkeypatch.context() as patch:
        for module, name in ((atomic, "write"), (atomic, "create"), (Path, "unlink")):
            patch.setattr(module, name, counted(getattr(module, name)))
        with contextlib.suppress(KeyboardInterrupt):
            dead.__enter__()
            dead.__exit__(None, None, None)
    worker = join()
    beat(worker, times=workers.BEATS_TO_DEATH)
    worker._look_at = 0.0
    assert worker.count == 1
    assert {path.stem for path in (store.folder / "workers").iterdir()} == {worker.name}


def test_other_versions_are_refused_while_they_train_and_not_afterwards(join, store, monkeypatch):
    worker = join()
    worker.tell(3, "")
    monkeypatch.setattr(workers, "SHORTEST_WAIT", 0.0)
    late = Worker(store, replace(ELSEWHERE, versions="2"))
    late._heart = threading.Thread(target=lambda: [beat(worker) for _ in iter(late._stopped.is_set, True)])
    with pytest.raises(sg.InputError, match=r"trained by another machine with 1, and this process has 2\. Install the"):
        late.__enter__()
    assert {path.stem for path in (store.folder / "workers").iterdir()} == {worker.name}
    worker.__exit__(None, None, None)
    assert join(replace(ELSEWHERE, versions="2")).count == 1


# ── Whole studies ────────────────────────────────────────────────────────────────────────────────────────

STUDY = """
import sgdscope as sg
from sgdscope.testing.quadratic import NoisyQuadratic

study = sg.Study(
    name="quadratic", workloads=NoisyQuadratic().workload(), batch_sizes=(8, 32), budgets=sg.Epochs(1), seeds=4,
    learning_rates=(0.25,),
)
"""
# Hearts beat quickly, packs are small, and checkpoints many, so that a short study has many moments to die in.
WORKER = """
import sys
from sgdscope.engine import run, workers
from sgdscope.training import loop
workers.BEAT_SECONDS, workers.BEATS_TO_DEATH, workers.LONGEST_WAIT, run.PACK_SECONDS = 0.05, 10, 0.1, 0.0
loop.CHECKPOINT_SECONDS, loop.SEGMENT_SECONDS = 0.0, 0.0
# Stops itself, as SIGSTOP from outside would, as the file of a commit is about to be renamed into place.
signal, left = int(sys.argv[1]), int(sys.argv[2])
import os
real = os.replace
def replace(aside, path):
    global left
    left -= os.path.basename(os.path.dirname(path)) == "trials"
    if left == 0 and signal:
        left = -1
        os.kill(os.getpid(), signal)
    real(aside, path)
os.replace = replace
from sgdscope.cli import main
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture
def worker(tmp_path):
    """Start a worker in a process of its own, which sends itself a signal at its first commit, or at a later one."""
    path, started = tmp_path / "study.py", []
    path.write_text(STUDY)

    def start(at=0, sent=0, command=("run", path, "--out", tmp_path / "s")):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(int(sent)), str(at), *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def same(one, other):
    assert one.numbers().equals(other.numbers())
    assert one.measurements.equals(other.measurements)
    assert one.correctness.equals(other.correctness)


def test_workers_that_are_killed_or_told_to_end_and_one_that_freezes_end_with_the_table_of_one(worker, tmp_path):
    frozen = worker(1, signal.SIGSTOP)
    os.waitpid(frozen.pid, os.WUNTRACED)
    kinds = [tmp_path / "s" / "workers", tmp_path / "s" / "leases"]
    of_frozen = {path.name for kind in kinds for path in kind.iterdir()}
    assert len(of_frozen) > 2
    terminated = worker(1, signal.SIGTERM)
    said = terminated.communicate()[0]
    assert terminated.returncode == 143, said
    assert "Terminated. Committed trials are safe." in said
    assert of_frozen.issuperset(path.name for kind in kinds for path in kind.iterdir())
    killed = [worker(1, signal.SIGKILL, ("work", tmp_path / "s")), worker(1, signal.SIGKILL)]
    assert [process.wait() for process in killed] == [-signal.SIGKILL] * 2
    joined = worker(command=("work", tmp_path / "s"))
    said = joined.communicate()[0]
    assert joined.returncode == 0, said
    result = sg.load(tmp_path / "s")
    assert result.finished
    frozen.send_signal(signal.SIGCONT)  # long after its trials were taken over
    said = frozen.communicate()[0]
    assert frozen.returncode == 0, said
    study = sg.studies.get(str(tmp_path / "study.py"))
    never = sg.run(study, tmp_path / "never", Console(quiet=True))
    again = sg.run(study, tmp_path / "s", Console(quiet=True))
    assert again.ran.trained == 0
    for each in (result, again):
        same(each, never)
    assert sorted(path.name for kind in kinds for path in kind.iterdir()) == []
    assert not list((tmp_path / "s").rglob("*.part"))


def quadratic(**changes):
    plain = {
        "name": "quadratic", "workloads": NoisyQuadratic().workload(), "batch_sizes": (4, 16), "budgets": sg.Epochs(1),
        "seeds": 2, "learning_rates": (0.25, 0.5),
    }  # fmt: skip
    return sg.Study(**(plain | changes))


def test_a_worker_joins_takes_in_what_others_commit_and_trains_only_the_rest(tmp_path, monkeypatch):
    """Another worker extends the study, trains what is free and leaves, between two packs of this one."""
    monkeypatch.setattr("sgdscope.engine.run.PACK_SECONDS", 0.0)
    plain, begun, said = Store.commit, [], io.StringIO()

    def commit(self, *tables):
        rows = plain(self, *tables)
        if not begun:
            begun.append(None)
            begun[0] = sg.run(quadratic(batch_sizes=(8,), seeds=3), tmp_path / "s", Console(quiet=True))
        return rows

    monkeypatch.setattr(Store, "commit", commit)
    result = sg.run(quadratic(), tmp_path / "s", Console(file=said, width=300))
    assert len(result.trials) == result.ran.trained + begun[0].ran.trained == 3 * 3 * 2 * 2
    assert result.ran.trained < 9
    assert result.finished
    assert "also holds batch_sizes 8; 3 seeds" in said.getvalue()
    same(result, sg.run(quadratic(batch_sizes=(4, 8, 16), seeds=3), tmp_path / "t", Console(quiet=True)))


@pytest.mark.parametrize("moment", ["as it joins", "as it declares", "in its place"])
def test_what_two_declare_at_the_same_moment_is_trained_as_one_study(moment, tmp_path, monkeypatch):
    """Another declares when this one has looked, when it is about to declare, or in place of what it declared."""
    join, declare, others = Worker.__enter__, Store.declare, [quadratic(batch_sizes=8, seeds=3).declaration()]

    def another(store):
        if others:
            atomic.write(store.folder / "study.json", others.pop().to_json().encode())

    def joined(self):
        if moment == "as it joins":
            another(self._store)
        return join(self)

    def declared(self, declaration):
        if moment == "as it declares":
            another(self)
        declare(self, declaration)
        if moment == "in its place":
            another(self)

    monkeypatch.setattr(Worker, "__enter__", joined)
    monkeypatch.setattr(Store, "declare", declared)
    result = sg.run(quadratic(), tmp_path / "s", Console(quiet=True))
    assert not others
    assert result.finished
    assert result.declaration.batch_sizes == (4, 8, 16)
    assert len(result.trials) == result.ran.trained == 3 * 3 * 2 * 2


def test_another_study_that_is_declared_at_the_same_moment_is_refused_and_stays(tmp_path, monkeypatch):
    plain, other = Store.declare, quadratic(name="another").declaration()
    monkeypatch.setattr(Store, "declare", lambda store, declaration: plain(store, other))
    with pytest.raises(sg.InputError, match="holds another study"):
        sg.run(quadratic(), tmp_path / "s", Console(quiet=True))
    assert Store(tmp_path / "s").declaration() == other


def test_runs_until_decided_go_on_with_the_seeds_that_another_of_them_adds(tmp_path, monkeypatch):
    """Another comes first in adding seeds, which this run finds when it looks at what it has trained."""
    study, looks, train = quadratic(batch_sizes=16), [], sgdscope.engine.run.train_study
    more = (sg.SeedsAt("sgd", 16, sg.Seeds(2, 2, 4)),)

    def trained(*arguments, **options):
        ran = train(*arguments, **options)
        if not looks:
            store = Store(tmp_path / "s")
            store.declare(replace(store.declaration(), seeds_at=more))
        return ran

    def raised(declaration, tables):
        assert tables.finished
        looks.append(declaration.seeds_at)
        return ()

    monkeypatch.setattr("sgdscope.engine.run.train_study", trained)
    monkeypatch.setattr("sgdscope.advice.until_decided.raised", raised)
    result = sg.run(study, tmp_path / "s", Console(quiet=True), until_decided=True)
    assert looks == [more]
    assert result.finished
    assert len(result.trials) == result.ran.trained == 2 * 2 * 2 + 2


def test_a_run_until_decided_ends_where_trials_fail(tmp_path, monkeypatch):
    def out_of_memory(self, trials):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(PackedBackend, "start", out_of_memory)
    result = sg.run(quadratic(batch_sizes=16), tmp_path / "s", Console(quiet=True), until_decided=True)
    assert not result.finished
    assert result.ran.failed == 8


def test_a_worker_with_other_functions_or_data_is_refused_and_the_others_go_on(tmp_path, monkeypatch):
    plain, refused = Store.commit, []
    other = NoisyQuadratic().workload()
    others = (
        replace(other, loss=lambda theta, state, batch: 2 * other.loss(theta, state, batch)),
        NoisyQuadratic(examples=128).workload(),
    )

    def commit(self, *tables):
        for workload in others if not refused else ():
            with pytest.raises(sg.InputError) as caught:
                sg.run(quadratic(workloads=workload), tmp_path / "s", Console(quiet=True))
            refused.append(str(caught.value))
        return plain(self, *tables)

    monkeypatch.setattr(Store, "commit", commit)
    assert sg.run(quadratic(), tmp_path / "s", Console(quiet=True)).finished
    assert "its functions compute something else than when" in refused[0]
    assert "holds another study" in refused[1]
    assert list((tmp_path / "s" / "workers").iterdir()) == []


def test_a_failure_that_another_worker_had_is_not_repeated_by_this_one(tmp_path, monkeypatch):
    start, release, joined, failing = PackedBackend.start, _Run._release, [], []

    def out_of_memory(self, trials):
        if trials[0].batch_size == 16:
            failing.extend(trial.id for trial in trials)
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return start(self, trials)

    def then_another(self, trials):
        release(self, trials)
        if trials and not joined:
            joined.append(True)
            sg.run(quadratic(), tmp_path / "s", Console(quiet=True))

    monkeypatch.setattr(PackedBackend, "start", out_of_memory)
    monkeypatch.setattr(_Run, "_release", then_another)
    monkeypatch.setattr("sgdscope.engine.run.PACK_SECONDS", 0.0)
    result = sg.run(quadratic(), tmp_path / "s", Console(quiet=True))
    assert len(result.trials.filter(status="failed")) == result.ran.failed == 8
    # The first pack had failed before the other worker came, whose run tried it again, as every new run does.
    assert sorted(Counter(failing).values()) == [1] * 6 + [2] * 2


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_no_lock_of_the_file_system_is_asked_for(code, tmp_path, monkeypatch):
    def no(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", no)
    monkeypatch.setattr("fcntl.lockf", no)
    monkeypatch.setattr("fcntl.fcntl", no)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "lock").touch()  # of an earlier version
    said = io.StringIO()
    assert sg.run(quadratic(batch_sizes=16), tmp_path / "s", Console(file=said)).finished
    assert "lock" not in said.getvalue()


def test_a_folder_that_an_earlier_version_is_training_is_refused_until_it_ends(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    store = Store(tmp_path / "s")
    store.folder.mkdir()
    with (store.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(sg.InputError, match=r"being trained by an earlier version of sgdscope, .* Wait until it"):
            sg.run(quadratic(), store.folder, Console(quiet=True))
        assert [path.name for path in store.folder.iterdir()] == ["lock"]
    with store.writing(), store.writing():
        pass


def test_the_example_of_an_array_job_shares_a_study_among_its_tasks(tmp_path, monkeypatch, capsys):
    """With tasks that run one after the other in place of submitit's."""

    class Executor:
        def __init__(self, folder, cluster):
            assert (folder, cluster) == (f"{tmp_path / 's'}-logs", "local")

        def update_parameters(self, **options):
            assert options["name"] == "sgdscope"

        def map_array(self, work, folders):
            return [SimpleNamespace(result=partial(work, folder)) for folder in folders]

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=Executor))
    monkeypatch.setattr("sys.argv", ["array_job.py", str(tmp_path / "s"), "2", "local"])
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "array_job.py"), run_name="__main__")
    assert "trained by each worker: [24, 0]" in capsys.readouterr().out
    assert (tmp_path / "s" / "report.html").exists()
