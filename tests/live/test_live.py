"""The page of a study that is being trained, in a real browser: as a file, and served to this machine alone."""

import http.client
import queue
import threading

import pytest

from sgdscope.cli import _parsed, main
from sgdscope.engine.search import search
from sgdscope.errors import InputError
from sgdscope.live.file import FILE, keep, write
from sgdscope.live.page import live_page, seconds_left
from sgdscope.live.server import Watch
from sgdscope.store import Store

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def folder(planted_study, tmp_path):
    """A study of three batch sizes, of which the first has ended."""
    return planted_study(tmp_path / "study", commits=1)


@pytest.fixture
def tab(browser):
    context = browser.new_context()
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    context.close()


def shares(tab):
    return [row.split("\t") for row in tab.locator(".cells tr").all_inner_texts()]


def test_the_file_shows_cells_and_curves_so_far_without_script_or_network(folder, tab):
    assert not write(folder)
    tab.goto((folder / FILE).as_uri())
    assert shares(tab) == [
        ["batch size", "8", "32", "128"],
        ["sgd", "100%", "0%", "0%"],
        ["momentum:0.9", "100%", "0%", "0%"],
    ]
    said = tab.inner_text("header")
    assert "18 of 54 trials known to be wanted" in said
    assert "2 × cpu" in said
    assert tab.locator(".drawn svg").count() == 1  # a law of batch sizes takes several
    assert tab.locator("script").count() == 0
    assert tab.locator('meta[http-equiv="refresh"]').count() == 1
    assert (tab.said, tab.asked) == ([], [(folder / FILE).as_uri()])


def test_the_served_page_grows_and_the_server_ends_with_the_study(folder, planted_study, tab, monkeypatch):
    monkeypatch.setattr("sgdscope.live.server.QUIET", 1)
    watch, steps = Watch(folder), queue.Queue()
    server = threading.Thread(target=watch.serve, args=[lambda seconds: steps.get()])
    server.start()
    tab.goto(watch.url)
    assert "18 of 54" in tab.inner_text("header")
    assert tab.said == []
    tab.click("text=Report of what is there so far")
    tab.wait_for_selector("html[data-drawn]")
    assert "This study is not finished" in tab.inner_text("header")
    assert tab.said == []
    planted_study(folder)
    steps.put(False)  # it was not shown yet that the study is finished
    tab.goto(watch.url)
    assert tab.inner_text("header .kicker") == "Finished: 54 trials."
    assert tab.locator('meta[http-equiv="refresh"]').count() == 0
    assert [row[1:] for row in shares(tab)[1:]] == [["100%"] * 3] * 2
    steps.put(False)  # something was asked for since
    steps.put(False)
    server.join(timeout=60)
    assert not server.is_alive()
    with pytest.raises(ConnectionRefusedError):
        ask(watch, "/")


def ask(watch, path, method="GET"):
    connection = http.client.HTTPConnection(*watch.server.server_address, timeout=60)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_nothing_is_there_without_the_token_and_nothing_can_be_written(folder):
    watch, steps = Watch(folder), queue.Queue()
    assert watch.server.server_address[0] == "127.0.0.1"
    assert len(watch.token) >= 20
    server = threading.Thread(target=watch.serve, args=[lambda seconds: steps.get()])
    server.start()
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    try:
        for path in (
            "/",
            "/wrong/",
            f"/{watch.token[:-1]}/",
            f"/{watch.token}/study.json",
            f"/{watch.token}/../",
            "//%C3%A9",
        ):
            assert ask(watch, path)[:2] == (404, b"")
        status, content, headers = ask(watch, f"/{watch.token}/?again")
        assert status == 200
        assert b"18 of 54" in content
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert ask(watch, f"/{watch.token}/", "HEAD")[:2] == (200, b"")
        for method in ("POST", "PUT", "DELETE"):
            assert ask(watch, f"/{watch.token}/", method)[0] == 501
    finally:
        steps.put(True)
        server.join(timeout=60)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_a_study_that_cannot_be_read_at_this_moment_has_a_page_that_looks_again(folder, monkeypatch):
    watch = Watch(folder)
    watch.server.server_close()
    declared = (folder / "study.json").read_text()
    (folder / "study.json").write_text(declared[:40])
    for name in ("", "report.html"):
        status, page, _ = watch.answer(f"/{watch.token}/{name}")
        assert status == 503
        assert b"The study cannot be shown at this moment. This page looks again every 5 seconds." in page
        assert b"study.json is damaged" in page
        assert b'http-equiv="refresh" content="5"' in page
    (folder / "study.json").write_text(declared)
    assert watch.answer(f"/{watch.token}/")[0] == 200

    def fails(*arguments):
        raise RuntimeError("<b>x</b>")

    monkeypatch.setattr("sgdscope.live.server.live_page", fails)
    monkeypatch.setenv("SGDSCOPE_CACHE_DIR", str(folder.parent / "cache"))
    watch._page = None
    status, page, _ = watch.answer(f"/{watch.token}/")
    assert (status, b"This is a defect of sgdscope (RuntimeError). Its traceback is in" in page) == (503, True)
    assert len(list((folder.parent / "cache" / "errors").iterdir())) == 1


def test_a_report_of_nothing_is_a_page_that_looks_again(planted_study, tmp_path):
    watch = Watch(planted_study(tmp_path / "study", commits=0))
    watch.server.server_close()
    status, page, _ = watch.answer(f"/{watch.token}/report.html")
    assert (status, b"This page looks again" in page) == (503, True)


def test_a_study_may_be_watched_before_it_begins_and_a_file_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Watch, "serve", lambda self: self.server.server_close())
    assert main(["watch", str(tmp_path / "study")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("http://127.0.0.1:")
    assert "there is no such folder. The page shows the study as soon as it begins." in said.err
    (tmp_path / "file").write_text("")
    assert main(["watch", str(tmp_path / "file")]) == 2
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "study.json").write_text("{")
    assert main(["watch", str(tmp_path / "damaged")]) == 2


def test_the_file_is_written_again_after_a_look_that_failed(folder, monkeypatch):
    from sgdscope.live import file

    looks = []

    def fails_once(*arguments):
        looks.append(1)
        if len(looks) == 1:
            raise RuntimeError
        return live_page(*arguments)

    monkeypatch.setattr(file, "live_page", fails_once)
    keep(folder, lambda seconds: len(looks) > 1)
    assert "18 of 54" in (folder / FILE).read_text()
    assert len(list((folder / "errors").iterdir())) == 1


def test_the_file_is_written_as_trials_are_committed_and_until_the_study_is_finished(tmp_path, planted_study):
    folder, seen = tmp_path / "study", []

    def wait(seconds):
        """Go on with the study, as a run beside would."""
        seen.append((folder / FILE).read_text().count(">100%<") if (folder / FILE).exists() else None)
        if len(seen) in (1, 2, 4):
            planted_study(folder, commits={1: 0, 2: 1, 4: 3}[len(seen)])
        return len(seen) > 5

    keep(folder, wait)
    assert seen == [None, 0, 2, 2]
    assert "Finished: 54 trials." in (folder / FILE).read_text()


def test_a_study_that_has_not_begun_has_a_page(tmp_path):
    page = live_page(tmp_path / "study")
    assert "The study has not begun." in page.html
    assert not page.finished


def test_the_time_that_is_left_is_that_of_the_pending_trials(folder):
    declaration, trials = Store(folder).declaration(), Store(folder).read().trials
    pending = search(declaration, trials).pending
    assert len(pending) == 36
    assert seconds_left(trials, pending) == pytest.approx(0.01 * sum(trial.updates for trial in pending))
    assert seconds_left(trials.clear(), pending) is None


def test_a_port_that_is_taken_is_named(folder, capsys):
    watch = Watch(folder)
    port = watch.server.server_port
    assert main(["watch", str(folder), "--port", str(port)]) == 2
    assert f"--port: {port} cannot be used (Address already in use)." in capsys.readouterr().err
    watch.server.server_close()
    with pytest.raises(InputError, match="port: 70000 cannot be used"):
        Watch(folder, 70000)


def test_a_finished_study_is_not_served(tmp_path, planted_study, capsys):
    folder = planted_study(tmp_path / "study")
    assert main(["watch", str(folder)]) == 0
    assert f"{folder} is finished." in capsys.readouterr().out


def test_a_run_with_live_keeps_the_page_and_writes_it_a_last_time(tmp_path, planted_study, capsys):
    folder = tmp_path / "study"
    with _parsed(["run", "digits", "--live"])._page_beside(folder):
        planted_study(folder, commits=2)
    page = (folder / FILE).read_text()
    assert "36 of 54 trials" in page
    assert 'http-equiv="refresh"' not in page
    assert f"Open {folder / FILE} in a browser" in capsys.readouterr().err
    assert not (folder / "errors").exists()
