"""app: a page on the user's own machine. Drop a video, watch valence and arousal come in, download them."""

import asyncio
import contextlib
import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from ...configs.schema import Config
from ..errors import InputError, MissingStageError
from ..ingest.catalog import VIDEO_SUFFIXES
from ..learning.model_file import model_path
from ..progress import Talk
from .app_jobs import MOST_WAITING, Job, Jobs, empty_clip
from .predict import REMEDY
from .report_html import assets

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STYLES = ("page.css", "player.css", "app.css")
SCRIPTS = ("basics.js", "player.js", "app.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; media-src blob:; "
    "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
BREATH = 0.1
"""Seconds between two messages on one job, at least."""
ALIVE = 15.0
"""Seconds after which a silent line says that it is still there."""


def serve(
    config: Config, model: Path, *, host: str, port: int, most: int, talk: Talk,
    ready: Callable[[str], Any] | None = None,
) -> None:  # fmt: skip
    """Serves until it is interrupted. port 0: any free one. most: bytes of an upload. ready: is given the address.

    Raises MissingStageError without a model, InputError where the port is taken.
    """
    if not model_path(model).is_file():
        raise MissingStageError(f"{model_path(model)}: there is no model", REMEDY)
    with tempfile.TemporaryDirectory(prefix="affect-app-", ignore_cleanup_errors=True) as folder:
        asyncio.run(_serve(config, model, Path(folder), host, port, most, talk, ready))


async def _serve(
    config: Config, model: Path, folder: Path, host: str, port: int, most: int, talk: Talk,
    ready: Callable[[str], Any] | None,
) -> None:  # fmt: skip
    try:
        sockets = bind_sockets(port, host)
    except OSError as error:
        raise InputError(f"{host}:{port}: {error.strerror}", "Choose another --port, or 0 for any.") from error
    jobs = Jobs(config, model, folder, talk)
    port = sockets[0].getsockname()[1]
    server = HTTPServer(_application(jobs, host, port, most), max_body_size=most)
    server.add_sockets(sockets)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if host not in LOOPBACK:
        talk.warn(f"whoever reaches {host} can use this: there is no password")
    talk.say(f"{address}  (Ctrl-C ends it)")
    if ready:
        ready(address)
    ended = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt instead
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, ended.set)
    try:
        await ended.wait()
    finally:
        with contextlib.suppress(NotImplementedError):  # asked again, it ends at once
            for name in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().remove_signal_handler(name)
        server.stop()
        await asyncio.get_running_loop().run_in_executor(None, jobs.close)
        await server.close_all_connections()


def _application(jobs: Jobs, host: str, port: int, most: int) -> Application:
    # A page elsewhere may point its own name at this machine; only our names are answered.
    names = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")} if host in LOOPBACK else None
    given: dict[str, Any] = {"jobs": jobs, "names": names, "most": most}
    return Application(
        [
            (r"/", Page, given),
            (r"/(app\.css|app\.js)", Asset, given),
            (r"/videos/new/([^/]+)", Upload, given),
            (r"/videos/([\w-]+)", One, given),
            (r"/videos/([\w-]+)/events", Events, given),
            (r"/videos/([\w-]+)/(clip|csv|page)", Result, given),
        ],
        log_function=lambda handler: None,
    )


class _Handler(RequestHandler):
    """What all have: strict headers, and an answer for our own page only."""

    def initialize(self, jobs: Jobs, names: set[str] | None, most: int) -> None:
        self.jobs, self.names, self.most = jobs, names, most

    def set_default_headers(self) -> None:
        for name, value in {
            "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin", "Server": "affect",
        }.items():  # fmt: skip
            self.set_header(name, value)

    def prepare(self) -> None:
        if self.names is not None and self.request.host not in self.names:
            raise HTTPError(403, reason="Not a name of this machine")
        if self.request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise HTTPError(403, reason="Asked by another page")

    def job(self, key: str) -> Job:
        if key not in self.jobs.jobs:
            raise HTTPError(404, reason="No such video here any more")
        return self.jobs.jobs[key]

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(self._reason)


class Page(_Handler):
    def get(self) -> None:
        text = (
            assets("app.html").replace("{most}", str(self.most)).replace("{suffixes}", ",".join(sorted(VIDEO_SUFFIXES)))
        )
        self.finish(text)


class Asset(_Handler):
    def get(self, name: str) -> None:
        self.set_header("Content-Type", f"text/{'css' if name.endswith('.css') else 'javascript'}; charset=utf-8")
        self.finish(assets(*(STYLES if name.endswith(".css") else SCRIPTS)))


@stream_request_body
class Upload(_Handler):
    """Takes the bytes of a video as they come, to disk."""

    made: Job | None = None

    def prepare(self) -> None:
        super().prepare()
        if self.request.method != "PUT":
            raise HTTPError(405)
        if int(self.request.headers.get("Content-Length") or 0) > self.most:
            raise HTTPError(413, reason=f"Larger than {self.most / 2**20:.0f} MiB")
        if self.jobs.full():
            raise HTTPError(503, reason=f"{MOST_WAITING} videos are waiting already")
        name = unquote(self.path_args[0])
        self.made = self.jobs.new(name)
        if self.made is None:
            raise HTTPError(415, reason=f"Not a video: expected one of {', '.join(sorted(VIDEO_SUFFIXES))}")
        self._file = self.made.video.open("wb")
        self._size = 0

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self.most:
            raise HTTPError(413, reason=f"Larger than {self.most / 2**20:.0f} MiB")
        if self.made is not None:
            self._file.write(chunk)

    def put(self, _: str) -> None:
        assert self.made is not None
        self._file.close()
        job, self.made = self.made, None
        self.jobs.start(job)
        self.finish({"key": job.key, "clip": empty_clip(job, self.jobs.config.predict.face_threshold)})

    def on_connection_close(self) -> None:
        self._leave()

    def on_finish(self) -> None:
        self._leave()

    def _leave(self) -> None:
        """An upload that broke off leaves nothing."""
        if self.made is not None:
            self._file.close()
            self.jobs.drop(self.made)
            self.made = None


class One(_Handler):
    def delete(self, key: str) -> None:
        self.jobs.drop(self.job(key))
        self.set_status(204)


class Events(_Handler):
    """What happens to a video, as server-sent events: each tells the status, and the rows since the one before."""

    async def get(self, key: str) -> None:
        job = self.job(key)
        self.set_header("Content-Type", "text/event-stream")
        last = self.request.headers.get("Last-Event-ID", "")
        sent = int(last) if last.isdigit() else 0
        woken = asyncio.Event()
        job.listeners.add(woken)
        try:
            while True:
                woken.clear()
                count = len(job.rows["frame"])
                told = {
                    "status": job.status, "message": job.message, "before": self.jobs.before(job), "facts": job.facts,
                    "rows": {name: column[sent:count] for name, column in job.rows.items()},
                }  # fmt: skip
                sent = count
                self.write(f"id: {sent}\ndata: {json.dumps(told, allow_nan=False)}\n\n")
                await self.flush()
                if job.status in ("done", "failed"):
                    return
                await asyncio.sleep(BREATH)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), ALIVE)
        except StreamClosedError:
            return
        finally:
            job.listeners.discard(woken)


class Result(_Handler):
    def get(self, key: str, what: str) -> None:
        job = self.job(key)
        ending, kind = {
            "clip": (".json", "application/json"), "csv": (".csv", "text/csv"), "page": (".html", "text/html"),
        }[what]  # fmt: skip
        if job.status != "done":
            raise HTTPError(404, reason="Not done yet")
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        if what != "clip":
            name = job.file(ending).name
            self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name)}")
        self.finish(job.file(ending).read_bytes())
