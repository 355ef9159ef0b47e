"""``sgdscope watch``: the page of a study on this machine's loopback address, behind a random word, to be read only."""

from __future__ import annotations

import hmac
import secrets
import tempfile
import threading
from collections.abc import Callable
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sgdscope.errors import InputError, keep_traceback
from sgdscope.live.page import REFRESH_SECONDS, LivePage, live_page, state_of
from sgdscope.report.page.templates import rendered_plain
from sgdscope.result import Result
from sgdscope.system import cache_folder

LOOPBACK = "127.0.0.1"
REPORT = "report.html"
# The page has no script and asks for nothing; the report has its own script inside.
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ONLY_STYLE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
# Vega compiles the expressions of its figures.
WITH_SCRIPT = f"{ONLY_STYLE} blob:; script-src 'unsafe-inline' 'unsafe-eval'"
# A request that is not complete by then is closed.
REQUEST_SECONDS = 10
# A finished study is served until nothing was asked for in so many looks, of 20 s each.
QUIET = 15


class Watch:
    """Serve a study's page until it is finished.

    Args:
        folder: The study's folder.
        port: The port. Default: one that is free.

    Raises:
        InputError: If the port cannot be used.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.token = folder, secrets.token_urlsafe(16)
        self._lock, self.over = threading.Lock(), threading.Event()
        self.asked = False
        self._page: tuple[tuple[str, ...], LivePage] | None = None
        self._report: tuple[tuple[str, ...], bytes] | None = None
        try:
            self.server = ThreadingHTTPServer((LOOPBACK, port), _handler(self))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port: {port} cannot be used ({getattr(error, 'strerror', None) or error}). Leave it out for a free "
                f"one, or use `sgdscope watch {folder} --file`, which needs none."
            ) from error
        self.server.daemon_threads = True

    @cached_property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.server.server_port}/{self.token}/"

    def answer(self, path: str) -> tuple[HTTPStatus, bytes, str]:
        """Return what is at a path: its status, its content and its policy. Only what has the token is there."""
        _, _, rest = path.partition("/")
        token, _, name = rest.partition("?")[0].partition("/")
        if not hmac.compare_digest(token.encode(), self.token.encode()) or name not in ("", REPORT):
            return HTTPStatus.NOT_FOUND, b"", ONLY_STYLE
        with self._lock:
            try:
                now = state_of(self.folder)
                if name == REPORT:
                    return HTTPStatus.OK, self._written_report(now), WITH_SCRIPT
                if self._page is None or self._page[0] != now:
                    self._page = (now, live_page(self.folder, REPORT))
                return HTTPStatus.OK, self._page[1].html.encode(errors="replace"), ONLY_STYLE
            except InputError as error:  # nothing to report yet, or a file that is not whole
                why = str(error)
            except Exception as error:  # a defect of ours must not end what may be well a moment later
                kept = keep_traceback(error, [cache_folder() / "errors"])
                why = f"This is a defect of sgdscope ({type(error).__name__}). Its traceback is in {kept}."
            name = self.folder.resolve().name
            page = rendered_plain("waiting.html.jinja", name=name, refresh=REFRESH_SECONDS, why=why)
            return HTTPStatus.SERVICE_UNAVAILABLE, page.encode(errors="replace"), ONLY_STYLE

    def _written_report(self, now: tuple[str, ...]) -> bytes:
        if self._report is None or self._report[0] != now:
            with tempfile.TemporaryDirectory() as aside:
                self._report = (now, Result(self.folder).save_report(Path(aside) / REPORT).read_bytes())
        return self._report[1]

    @property
    def finished(self) -> bool:
        """Whether the page that was last shown is that of the finished study."""
        return self._page is not None and self._page[1].finished

    def serve(self, wait: Callable[[float], bool] | None = None) -> None:
        """Serve until the finished study was shown and nothing was asked for since, or ``wait`` says to stop."""
        stops, quiet = wait or self.over.wait, 0
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        try:
            while not stops(4 * REFRESH_SECONDS):
                quiet, self.asked = 0 if self.asked else quiet + 1, False
                if self.finished and quiet >= QUIET:
                    break
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


def _handler(watch: Watch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers what is read; of other methods there is none."""

        timeout = REQUEST_SECONDS
        server_version, sys_version = "sgdscope", ""

        def do_GET(self) -> None:
            """Answer with a page."""
            self._answer(with_content=True)

        def do_HEAD(self) -> None:
            """Answer without its content."""
            self._answer(with_content=False)

        def _answer(self, with_content: bool) -> None:
            watch.asked = True
            status, content, policy = watch.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", policy)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - http.server's name
            """Print nothing: a line would hold the token."""

    return Handler
