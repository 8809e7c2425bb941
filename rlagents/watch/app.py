"""The routes of `rlagents watch`: pages from templates, everything else as JSON or files.

Nothing is written, but for training episodes that are rebuilt into a temporary folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.resources
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import jinja2
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

from rlagents.errors import RLAgentsError, UsageError
from rlagents.watch.guard import Guard
from rlagents.watch.library import MOST_COMPARED, Library
from rlagents.watch.rebuild import BusyError, Job, Rebuilder
from rlagents.watch.videos import (
    MIME,
    NotFoundError,
    describe_video,
    read_header,
    read_sidecar,
)
from rlagents.wording import finite

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_HERE = Path(__file__).parent
_POINTS = 800
_DAY = "private, max-age=86400"
_GZIP_LEVEL = 4  # a third of the time of 9, for files a few percent larger
_REBUILT = re.compile("training-([0-9]{1,15})")  # the ids of rebuilt episodes


def create_app(
    runs_dir: Path,
    *,
    token: str | None = None,
    allow_import: bool = False,
    allowed_hosts: Sequence[str] = LOOPBACK,
    rebuilder: Rebuilder | None = None,
) -> ASGIApp:
    """Return the application.

    Args:
        runs_dir: the folder of runs.
        token: that a browser must show, None where only this machine can ask.
        allow_import: whether environments that are code named in a run's config may be imported, by
            the processes that rebuild training episodes.
        allowed_hosts: names and addresses that the server may be asked by.
        rebuilder: rebuilds training episodes; one with the usual limits if None.
    """
    server = _Server(
        Library(runs_dir, allow_import=allow_import),
        rebuilder or Rebuilder(allow_import=allow_import),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(server.rebuilder.close)

    app = Starlette(
        routes=server.routes(),
        middleware=[Middleware(GZipMiddleware, compresslevel=_GZIP_LEVEL)],
        exception_handlers={
            HTTPException: server.refuse,
            RLAgentsError: server.refuse,
            Exception: server.refuse,
        },
        lifespan=lifespan,
    )
    return Guard(app, allowed_hosts, token)


class _Server:
    """Answers requests; files are read in threads, so that one does not wait for another."""

    def __init__(self, library: Library, rebuilder: Rebuilder) -> None:
        self.library = library
        self.rebuilder = rebuilder
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True
        )
        self._templates = Jinja2Templates(env=environment)
        self._version = importlib.metadata.version("rlagents")

    def routes(self) -> list[BaseRoute]:
        """Return which function answers what."""
        run = "/api/run/{run}"
        video = run + "/video/{video}"
        plotly = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"

        def get(path: str, answer: Callable[[Request], Response]) -> Route:
            return Route(path, answer, methods=["GET"])  # and HEAD, says Starlette

        return [
            get("/", self.list_page),
            get("/run/{run}", self.run_page),
            get("/compare", self.compare_page),
            get("/api/runs", self.runs),
            get(run, self.run),
            get(f"{run}/curves", self.curves),
            get(video, self.video),
            get(f"{video}/data", self.sidecar),
            get(f"{video}/overlay/{{method}}", self.overlay),
            Route(f"{run}/training/{{episode}}", self.training, methods=["GET", "POST"]),
            get("/api/curves", self.group_curves),
            get(
                "/static/plotly.min.js",
                lambda request: _file(
                    request, Path(str(plotly)), "text/javascript", {"Cache-Control": _DAY}
                ),
            ),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ]

    # Pages.

    def list_page(self, request: Request) -> Response:
        """Show all runs."""
        return self._page(request, "runs.html", {})

    def run_page(self, request: Request) -> Response:
        """Show one run."""
        run = request.path_params["run"]
        self.library.find(run)
        return self._page(request, "run.html", {"run": run})

    def compare_page(self, request: Request) -> Response:
        """Show several runs."""
        runs = request.query_params.getlist("run")
        if len(runs) > MOST_COMPARED:
            raise UsageError(f"run: expected at most {MOST_COMPARED} runs, got {len(runs)}.")
        for run in runs:
            self.library.find(run)
        return self._page(request, "compare.html", {"runs": runs})

    def _page(
        self, request: Request, name: str, context: dict[str, Any], status: int = 200
    ) -> Response:
        always = {"version": self._version, "runs_dir": str(self.library.runs_dir)}
        return self._templates.TemplateResponse(request, name, always | context, status)

    def refuse(self, request: Request, error: Exception) -> Response:
        """Say in a sentence why there is no answer."""
        headers = None
        if isinstance(error, HTTPException):
            status, headers = error.status_code, error.headers
            sentence = _SENTENCES.get(status, str(error.detail))
        elif isinstance(error, RLAgentsError):
            status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
            sentence = str(error)
        else:
            status = 500
            sentence = f"This server has made a mistake ({error!r}); the rest goes on working."
        if request.url.path.startswith(("/api/", "/static/")):
            return _json({"error": sentence}, status, headers)
        title = "Not found" if status == 404 else "This does not work"
        response = self._page(
            request, "problem.html", {"title": title, "message": sentence}, status
        )
        response.headers.update(headers or {})
        return response

    # Data.

    def runs(self, request: Request) -> Response:
        """Answer with the summaries of all runs."""
        runs = self.library.runs()
        return _json({"runs_dir": str(self.library.runs_dir), "runs": runs})

    def run(self, request: Request) -> Response:
        """Answer with what a run's page shows."""
        response = _json(self.library.details(request.path_params["run"]))
        tag = hashlib.sha256(response.body).hexdigest()[:32]
        return _unless_known(request, tag) or _tagged(response, tag)

    def curves(self, request: Request) -> Response:
        """Answer with a run's curves."""
        run = request.path_params["run"]
        points = _whole(request.query_params.get("points", str(_POINTS)), "points")
        tag = self.library.curves_version(run, points)  # before it is read: never too new
        return _unless_known(request, tag) or _tagged(_json(self.library.curves(run, points)), tag)

    def group_curves(self, request: Request) -> Response:
        """Answer with the curves of several runs, those that differ in their seeds as one."""
        query = request.query_params
        x = _choice(query.get("x", "step"), "x", ("step", "wall_time_s"))
        what = _choice(query.get("what", "training"), "what", ("training", "evaluation"))
        statistic = _choice(query.get("statistic", "mean"), "statistic", ("mean", "iqm"))
        return _json(
            self.library.group_curves(
                query.getlist("run"),
                cast(Literal["step", "wall_time_s"], x),
                cast(Literal["training", "evaluation"], what),
                cast(Literal["mean", "iqm"], statistic),
            )
        )

    def video(self, request: Request) -> Response:
        """Answer with a video."""
        run, video = request.path_params["run"], request.path_params["video"]
        path = self._rebuilt(run, video) or self.library.video(run, video)
        return _file(request, path, MIME[path.suffix])

    def sidecar(self, request: Request) -> Response:
        """Answer with the JSON about a video."""
        run, video = request.path_params["run"], request.path_params["video"]
        rebuilt = self._rebuilt(run, video)
        if rebuilt is not None:
            text = read_sidecar(rebuilt.with_suffix(".json"))
        else:
            text = self.library.sidecar(run, video)
        return Response(text, media_type="application/json")

    def overlay(self, request: Request) -> Response:
        """Answer with the video in which an overlay is drawn."""
        params = request.path_params
        path = self.library.overlay(params["run"], params["video"], params["method"])
        return _file(request, path, MIME[path.suffix])

    def _rebuilt(self, run: str, video: str) -> Path | None:
        """Return the video of a training episode that was rebuilt."""
        match = _REBUILT.fullmatch(video)
        if match is None:
            return None
        job = self.rebuilder.find(self.library.find(run), int(match[1]))
        return None if job is None else job.video

    def training(self, request: Request) -> Response:
        """Begin to rebuild a training episode if the method is POST; answer how far it is."""
        run = request.path_params["run"]
        episode = _whole(request.path_params["episode"], "episode")
        directory = self.library.find(run)
        job = self.rebuilder.find(directory, episode)
        if request.method == "POST" and (job is None or job.state == "failed"):
            job = self.rebuilder.request(self.library.check_rebuild(run, episode), episode)
        return _json(_describe_job(job))


# What an error is answered with, and the sentences for those of Starlette.
_STATUS: dict[type[RLAgentsError], int] = {NotFoundError: 404, BusyError: 429, UsageError: 400}
_SENTENCES = {
    404: "There is no such page here.",
    405: "This page can only be read.",
}


def _describe_job(job: Job | None) -> dict[str, Any]:
    if job is None:
        return {"state": "none", "progress": 0.0, "video": None, "error": None}
    state, video = job.state, None
    if state == "ready" and job.video is not None:
        header = read_header(job.video.with_suffix(".json"))
        video = describe_video(job.video.name, header, (), {}) | {"episode": job.episode}
    return {"state": state, "progress": job.progress, "video": video, "error": job.error}


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
    """Answer with JSON that browsers read: null for numbers that are not finite."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, media_type="application/json")


def _tagged(response: Response, tag: str) -> Response:
    response.headers["ETag"] = f'"{tag}"'
    return response


def _unless_known(request: Request, tag: str) -> Response | None:
    """Return the answer to a browser that has this already, None if it has not."""
    known = request.headers.get("if-none-match", "")
    if f'"{tag}"' not in [one.strip().removeprefix("W/") for one in known.split(",")]:
        return None
    return _tagged(Response(status_code=304), tag)


def _file(
    request: Request, path: Path, media_type: str, headers: dict[str, str] | None = None
) -> Response:
    """Answer with a file, or with the part of it that was asked for."""
    try:
        about = path.stat()
    except OSError:
        raise NotFoundError(f"{path.name} is gone; perhaps it was deleted.") from None
    response = FileResponse(path, headers=headers, media_type=media_type, stat_result=about)
    if "range" in request.headers:
        return response
    return _unless_known(request, response.headers["etag"].strip('"')) or response


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise UsageError(f"{name}: expected a whole number, 0 or more, got {text!r}.")
    return int(text)


def _choice(text: str, name: str, known: Sequence[str]) -> str:
    if text not in known:
        raise UsageError(f"{name}: expected {' or '.join(known)}, got {text!r}.")
    return text
