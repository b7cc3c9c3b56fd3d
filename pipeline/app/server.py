"""app: a local web page. You drop a video, see its valence and arousal while they are computed, and download them."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from ...configs.schema import Config
from ..errors import InputError, MissingStageError
from ..inference.load import MODEL_REMEDY
from ..ingest.temporary import temporary_folder
from ..ingest.walk import VIDEO_SUFFIXES
from ..learning.model_file import model_path
from ..names import shown
from ..progress import Reporter
from ..visualization.html import PLAYER_SCRIPTS, assets, render
from .jobs import MAX_WAITING, Job, Jobs, empty_clip

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STYLES = ("page.css", "player.css", "app.css")
SCRIPTS = (*PLAYER_SCRIPTS, "app.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; media-src blob:; "
    "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
MIN_INTERVAL = 0.1
"""Seconds between two events of a job, at least."""
MAX_SILENCE = 15.0
"""Seconds without news after which an event is sent anyway, so that a closed connection is noticed."""


@dataclass(frozen=True)
class ServerOptions:
    """port: 0 for any free one. max_bytes: of an upload. allowed_hosts: other host names to answer to, for a proxy.

    on_ready: called with the address once the server listens.
    """

    host: str
    port: int
    max_bytes: int
    allowed_hosts: Sequence[str] = ()
    on_ready: Callable[[str], Any] | None = None


def serve(config: Config, model: Path, options: ServerOptions, reporter: Reporter) -> None:
    """Serves the page until Ctrl-C or SIGTERM.

    Raises MissingStageError without a model, InputError if the address cannot be used, WorkError without a temporary
    folder.
    """
    if not model_path(model).is_file():
        raise MissingStageError(f"{model_path(model)}: there is no model", MODEL_REMEDY)
    with temporary_folder("affect-app-") as folder:
        asyncio.run(_serve(config, model, folder, options, reporter))


async def _serve(config: Config, model: Path, folder: Path, options: ServerOptions, reporter: Reporter) -> None:
    host = options.host
    try:
        sockets = bind_sockets(options.port, host)
    except OSError as error:
        text = f"{host}:{options.port}: the server cannot listen here ({error.strerror})"
        raise InputError(text, "Choose another --host or --port; --port 0 takes any free port.") from error
    jobs = Jobs(config, model, folder, reporter)
    server = HTTPServer(_application(jobs, options), max_body_size=options.max_bytes)
    server.add_sockets(sockets)
    address = f"http://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}/"
    if host not in LOOPBACK:
        reporter.warning(f"the server has no password: everyone who can reach {host} can use it")
    reporter.info(f"{address}  (Ctrl-C ends it)")
    if options.on_ready:
        options.on_ready(address)
    try:
        await _wait_for_signal()
    finally:
        server.stop()
        await asyncio.get_running_loop().run_in_executor(None, jobs.close)
        await server.close_all_connections()


async def _wait_for_signal() -> None:
    """Returns at the first SIGINT or SIGTERM; a second one then has its usual effect."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    # Windows has no signal handlers here: Ctrl-C raises KeyboardInterrupt.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def _application(jobs: Jobs, options: ServerOptions) -> Application:
    # Against DNS rebinding, where another page gives its own host name this machine's address: only known names are
    # answered. The port may be any, because a forwarded port has another number.
    allowed = {name.strip("[]").lower() for name in options.allowed_hosts}
    hosts = {*LOOPBACK, options.host, *allowed} if options.host in LOOPBACK else None
    shared: dict[str, Any] = {"jobs": jobs, "hosts": hosts, "max_bytes": options.max_bytes}
    return Application(
        [
            (r"/", PageHandler, shared),
            (r"/(app\.css|app\.js)", AssetHandler, shared),
            (r"/videos/new/([^/]+)", UploadHandler, shared),
            (r"/videos/([\w-]+)", JobHandler, shared),
            (r"/videos/([\w-]+)/events", EventsHandler, shared),
            (r"/videos/([\w-]+)/(clip|csv|page)", ResultHandler, shared),
        ],
        log_function=lambda handler: None,
    )


class _Handler(RequestHandler):
    """Base of all handlers: strict headers, and no answer to other sites.

    hosts: the host names to answer to, None for all.
    """

    _error_text = ""

    def initialize(self, jobs: Jobs, hosts: set[str] | None, max_bytes: int) -> None:
        self.jobs, self.hosts, self.max_bytes = jobs, hosts, max_bytes

    def set_default_headers(self) -> None:
        for name, value in {
            "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin", "Server": "affect",
        }.items():  # fmt: skip
            self.set_header(name, value)

    def prepare(self) -> None:
        name = (urlsplit(f"//{self.request.host}").hostname or "").lower()
        if self.hosts is not None and name not in self.hosts:
            self.refuse(
                f"affect app does not accept the host name {shown(name)!r}. "
                f"If this machine has that name, start affect app with --allow-host {shown(name)}"
            )
        if self.request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not self.is_link():
            self.refuse("Another site cannot use affect app. Open the address of affect app in a new tab.")

    def is_link(self) -> bool:
        """Whether the user follows a link from another site to the page, which is harmless."""
        headers = self.request.headers
        opened = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        return opened and self.request.method in ("GET", "HEAD") and self.request.path == "/"

    def refuse(self, text: str) -> None:
        """Raises HTTPError 403. The body of the answer is the text."""
        self._error_text = text
        raise HTTPError(403, reason="Forbidden")

    def job(self, key: str) -> Job:
        if key not in self.jobs.jobs:
            raise HTTPError(404, reason="This video does not exist or was deleted")
        return self.jobs.jobs[key]

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(self._error_text or self._reason)


class PageHandler(_Handler):
    def get(self) -> None:
        self.finish(render("app.html", max_bytes=self.max_bytes, suffixes=",".join(sorted(VIDEO_SUFFIXES))))


class AssetHandler(_Handler):
    def get(self, name: str) -> None:
        self.set_header("Content-Type", f"text/{'css' if name.endswith('.css') else 'javascript'}; charset=utf-8")
        self.finish(assets(*(STYLES if name.endswith(".css") else SCRIPTS)))


@stream_request_body
class UploadHandler(_Handler):
    """Writes an upload to disk while it arrives. job_in_upload: None before it starts and after it is complete."""

    job_in_upload: Job | None = None

    def prepare(self) -> None:
        super().prepare()
        if self.request.method != "PUT":
            raise HTTPError(405)
        if int(self.request.headers.get("Content-Length") or 0) > self.max_bytes:
            raise HTTPError(413, reason=self._too_large())
        if self.jobs.full():
            raise HTTPError(503, reason=f"{MAX_WAITING} videos are already waiting. Try again later")
        name = unquote(self.path_args[0])
        self.job_in_upload = self.jobs.new(name)
        if self.job_in_upload is None:
            raise HTTPError(415, reason=f"Not a video file: expected one of {', '.join(sorted(VIDEO_SUFFIXES))}")
        self._file = self.job_in_upload.video.open("wb")
        self._size = 0

    def _too_large(self) -> str:
        return f"Larger than {self.max_bytes / 2**20:.0f} MiB, the limit of --most-mib"

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self.max_bytes:
            raise HTTPError(413, reason=self._too_large())
        if self.job_in_upload is not None:
            self._file.write(chunk)

    def put(self, _: str) -> None:
        assert self.job_in_upload is not None
        self._file.close()
        job, self.job_in_upload = self.job_in_upload, None
        self.jobs.start(job)
        self.finish({"key": job.key, "clip": empty_clip(job, self.jobs.config.predict.face_threshold)})

    def on_connection_close(self) -> None:
        self._discard()

    def on_finish(self) -> None:
        self._discard()

    def _discard(self) -> None:
        """Deletes an upload that is not complete."""
        if self.job_in_upload is not None:
            self._file.close()
            self.jobs.drop(self.job_in_upload)
            self.job_in_upload = None


class JobHandler(_Handler):
    def delete(self, key: str) -> None:
        self.jobs.drop(self.job(key))
        self.set_status(204)


class EventsHandler(_Handler):
    """Server-sent events of a job: its status, and the rows since the event before."""

    async def get(self, key: str) -> None:
        job = self.job(key)
        self.set_header("Content-Type", "text/event-stream")
        last = self.request.headers.get("Last-Event-ID", "")
        rows_sent = int(last) if last.isdigit() else 0
        changed = asyncio.Event()
        job.listeners.add(changed)
        try:
            while True:
                changed.clear()
                count = len(job.rows["frame"])
                event = {
                    "status": job.status, "message": job.message, "before": self.jobs.jobs_before(job),
                    "facts": job.facts,
                    "rows": {name: column[rows_sent:count] for name, column in job.rows.items()},
                }  # fmt: skip
                rows_sent = count
                self.write(f"id: {rows_sent}\ndata: {json.dumps(event, allow_nan=False)}\n\n")
                await self.flush()
                if job.status in ("done", "failed"):
                    return
                await asyncio.sleep(MIN_INTERVAL)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), MAX_SILENCE)
        except StreamClosedError:
            return
        finally:
            job.listeners.discard(changed)


class ResultHandler(_Handler):
    def get(self, key: str, what: str) -> None:
        job = self.job(key)
        suffix, media_type = {
            "clip": (".json", "application/json"), "csv": (".csv", "text/csv"), "page": (".html", "text/html"),
        }[what]  # fmt: skip
        if job.status != "done":
            raise HTTPError(404, reason="This video is not finished yet")
        self.set_header("Content-Type", f"{media_type}; charset=utf-8")
        if what != "clip":
            name = job.file(suffix).name
            self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name)}")
        self.finish(job.file(suffix).read_bytes())
