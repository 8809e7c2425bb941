"""What the page's server refuses, how it is started, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from watch_tools import Browser, fake_run, fake_video

from rlagents import watch
from rlagents.errors import UsageError
from rlagents.watch.app import create_app
from rlagents.watch.guard import is_token
from rlagents.watch.rebuild import Rebuilder

Cli = Callable[..., Any]

VIDEO = "step-200-episode-0-return-9"
TOKEN = "correct-horse-battery"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    run = fake_run(tmp_path / "runs" / "one", returns=[1.0])
    fake_video(run, VIDEO)
    (tmp_path / "secret.json").write_text('"treasure"')
    (tmp_path / "secret.mp4").write_text("treasure")
    (tmp_path / "runs" / ".hidden").mkdir()
    fake_run(tmp_path / "runs" / ".hidden" / "deep")
    return tmp_path / "runs"


@pytest.fixture
def browser(runs: Path) -> Browser:
    return Browser(create_app(runs))


# --- paths ----------------------------------------

ATTEMPTS = [
    *("..", "../secret", "%2e%2e", "%2e%2e%2fsecret", "..%2fsecret", "....//secret", "%2fetc%2f"),
    *("/etc/passwd", "//etc/passwd", "%00", "one%00", ".hidden", ".hidden%2fdeep", "."),
    *("one%2f..%2f..%2fsecret", "one/", "%5c..%5csecret", "C:%5c", "one.", "%ff", "*", "~", "o?e"),
    f"{VIDEO}%00",
    *(f"../{VIDEO}", f"%2e%2e%2fvideos%2f{VIDEO}", f".{VIDEO}", f"{VIDEO}.mp4", f"{VIDEO}.json"),
    *("training-..", "training-%2e%2e", "training--1", "training-1e9", "training-²", "x" * 5000),
]


@pytest.mark.parametrize(
    "path",
    [
        *("/run/{}", "/compare?run={}", "/api/run/{}", "/api/run/{}/curves", "/static/{}"),
        *("/api/run/{}/video/" + VIDEO, "/api/run/{}/training/0", "/api/run/one/video/{}"),
        *("/api/run/one/video/{}/data", "/api/run/one/video/" + VIDEO + "/overlay/{}"),
        *("/api/run/one/training/{}", "/api/curves?run={}"),
    ],
)
def test_no_path_leads_out_of_the_folder(browser: Browser, path: str) -> None:
    for attempt in ATTEMPTS:
        answer = browser.get(path.format(attempt))
        assert answer.status in (307, 400, 404), attempt
        assert b"treasure" not in answer.body


def test_what_begins_with_a_dot_is_not_served(browser: Browser, runs: Path) -> None:
    half = runs / "one" / "videos" / ".step-1-episode-0-return-0.mp4"
    half.write_bytes(b"half of a video")
    assert browser.get("/api/run/one/video/.step-1-episode-0-return-0").status == 404
    assert browser.get("/api/run/.hidden").status == 404
    assert [run["id"] for run in browser.get("/api/runs").json["runs"]] == ["one"]


# --- hosts ----------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "LOCALHOST:8420", "127.0.0.1:1", "[::1]:8420", "localhost."]
)
def test_the_server_answers_to_its_own_names(runs: Path, host: str) -> None:
    assert Browser(create_app(runs), host).get("/api/runs").status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8420", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("", "localhost@evil.example", "localhost:evil", "[::1", "::1", "127.0.0.2", "localhost:"),
    ],
)
def test_a_foreign_host_is_refused(runs: Path, host: str) -> None:
    for path in ("/", "/api/runs", "/static/style.css"):
        answer = Browser(create_app(runs), host).get(path)
        assert answer.status == 400
        assert b"is not called" in answer.body


def test_other_hosts_are_answered_if_they_are_allowed(runs: Path) -> None:
    app = create_app(runs, allowed_hosts=["box.example"], token=TOKEN)
    assert Browser(app, "box.example:8420").get(f"/api/runs?token={TOKEN}").status == 200
    assert Browser(app, "localhost:8420").get(f"/api/runs?token={TOKEN}").status == 400


# --- reading only ----------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/api/runs", "/api/run/one", "/static/style.css"])
def test_nothing_can_be_changed(browser: Browser, method: str, path: str) -> None:
    assert browser.ask(method, path).status == 405


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8420"},
        {"origin": "http://[127.0.0.1:8420"},
        {"origin": "http://["},
        {"origin": ""},
    ],
)
def test_other_pages_cannot_make_it_work(runs: Path, headers: dict[str, str]) -> None:
    rebuilder = Rebuilder(command=["false"])
    browser = Browser(create_app(runs, rebuilder=rebuilder))
    answer = browser.post("/api/run/one/training/0", headers)
    assert answer.status == 403
    assert browser.get("/api/run/one/training/0").json["state"] == "none"
    own = {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8420"}
    assert browser.post("/api/run/one/training/0", own).status == 200
    rebuilder.close()


def test_every_answer_says_what_browsers_may_do_with_it(browser: Browser) -> None:
    for path in ("/", "/api/runs", "/nothing", f"/api/run/one/video/{VIDEO}", "/static/style.css"):
        headers = browser.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "script" not in policy  # so scripts come from here, and stand in no page
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "private, no-cache"
        assert not [name for name in headers if name.startswith("access-control")]


# --- the token ----------------------------------------


def test_nothing_is_shown_without_the_token(runs: Path) -> None:
    browser = Browser(create_app(runs, token=TOKEN))
    paths = ["/", "/api/runs", "/static/style.css", f"/api/run/one/video/{VIDEO}", "/nothing"]
    for path in paths:
        for wrong in ("", "?token=", "?token=wrong", f"?token={TOKEN}x", "?token=ü"):
            answer = browser.get(path + wrong)
            assert answer.status == 401
            assert b"needs its token" in answer.body
            assert "set-cookie" not in answer.headers
        assert browser.get(path, {"cookie": "rlagents_8420=wrong"}).status == 401
        assert browser.get(path, {"cookie": f"rlagents_1={TOKEN}"}).status == 401


def test_the_token_is_given_once_and_kept_in_a_cookie(runs: Path) -> None:
    browser = Browser(create_app(runs, token=TOKEN))
    answer = browser.get(f"/compare?run=one&token={TOKEN}&run=a%26b")
    assert answer.status == 200
    assert b'content="0;url=/compare?run=one&amp;run=a%26b"' in answer.body
    assert TOKEN.encode() not in answer.body
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    for path in ("/", "/api/runs", "/static/style.css"):
        assert browser.get(path, {"cookie": f"other=1; {cookie}"}).status == 200
    again = browser.get(f"/?token={TOKEN}", {"cookie": cookie})  # out of the address once more
    assert b'content="0;url=/"' in again.body
    direct = browser.get(f"/api/runs?token={TOKEN}")  # for programs
    assert direct.json["runs"][0]["id"] == "one"


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/"])
def test_the_way_in_leads_nowhere_else(runs: Path, path: str) -> None:
    answer = Browser(create_app(runs, token=TOKEN)).get(f"{path}?token={TOKEN}")
    assert b'content="0;url=/"' in answer.body


def test_which_texts_are_tokens() -> None:
    assert is_token("a" * 16)
    assert is_token("aZ09_-" * 10)
    for text in ("", "short", "a" * 201, "spaces are not good", "semi;colon-semi;colon", "ä" * 20):
        assert not is_token(text)


# --- starting ----------------------------------------


class Started(Exception):  # noqa: N818 - no error
    """Raised in place of serving."""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let `serve` do everything but serve, and tell what it would."""
    import uvicorn

    told: dict[str, Any] = {"opened": []}

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        told["app"] = self.config.app
        told["ws"] = self.config.ws
        told["port"] = sockets[0].getsockname()[1]
        told["address"] = sockets[0].getsockname()[0]

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setattr(watch.webbrowser, "open", told["opened"].append)
    return told


def test_a_folder_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    for name in ("nothing", 5000 * "x"):
        outcome = cli("watch", tmp_path / name)
        assert outcome.code == 2
        assert "There is no folder" in outcome.err


def test_a_run_can_be_named_as_elsewhere(
    cli: Cli, runs: Path, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs.name == "runs"
    run = next(runs.glob("*/config.json")).parent
    monkeypatch.chdir(runs.parent)
    outcome = cli("watch", run.name, "--port", 0, "--no-open")
    assert outcome.code == 0, outcome.err
    assert f"/run/{run.name} " in outcome.out


def test_it_listens_to_this_machine_alone(cli: Cli, runs: Path, started: dict[str, Any]) -> None:
    outcome = cli("watch", runs, "--port", 0, "--no-open")
    assert (outcome.code, outcome.err) == (0, "")
    port = started["port"]
    assert outcome.out == f"watching {runs} at http://127.0.0.1:{port}/ (Ctrl-C ends)\n"
    assert started["address"] == "127.0.0.1"
    assert started["opened"] == []
    assert started["ws"] == "none"  # what the guard does not see
    assert Browser(started["app"], "evil.example").get("/").status == 400


def test_a_port_in_use(cli: Cli, runs: Path, started: dict[str, Any]) -> None:
    with watch.listen("127.0.0.1", None) as first, watch.listen("127.0.0.1", None) as second:
        ports = [one.getsockname()[1] for one in (first, second)]
        assert watch.FIRST_PORT <= ports[0] < ports[1]  # the next that is free
        outcome = cli("watch", runs, "--port", ports[0], "--no-open")
        assert outcome.code == 2
        assert f"--port: {ports[0]} is in use" in outcome.err
        assert cli("watch", runs, "--no-open").code == 0
        assert started["port"] > ports[1]


@pytest.mark.parametrize("port", ["-1", "65536", "http", "8420.5"])
def test_ports_that_are_none(cli: Cli, runs: Path, port: str) -> None:
    outcome = cli("watch", runs, f"--port={port}")
    assert outcome.code == 2
    assert "0 to 65535" in outcome.err


def test_another_host_needs_a_token(cli: Cli, runs: Path, started: dict[str, Any]) -> None:
    outcome = cli("watch", runs, "--host", "0.0.0.0", "--no-open")
    assert outcome.code == 2
    assert "app" not in started
    proposed = re.search(r"--token (\S+)$", outcome.err.strip())
    assert proposed is not None
    done = cli(
        *("watch", runs, "--host", "0.0.0.0", "--port", 0, "--token", proposed[1], "--no-open")
    )
    assert done.code == 0
    assert done.out.endswith(f"/?token={proposed[1]} (Ctrl-C ends)\n")
    assert started["address"] == "0.0.0.0"
    for host in (socket.gethostname(), "127.0.0.1:80", "localhost"):
        browser = Browser(started["app"], host)
        assert browser.get("/").status == 401
        assert browser.get(f"/api/runs?token={proposed[1]}").status == 200
    assert Browser(started["app"], "evil.example").get(f"/?token={proposed[1]}").status == 400


@pytest.mark.parametrize("words", [["--host", "127.0.0.1"], ["--host", "localhost"], []])
def test_a_token_on_this_machine_is_a_choice(
    cli: Cli, runs: Path, started: dict[str, Any], words: list[str]
) -> None:
    assert cli("watch", runs, "--port", 0, "--no-open", *words).code == 0
    assert Browser(started["app"]).get("/api/runs").status == 200
    assert cli("watch", runs, "--port", 0, "--no-open", "--token", TOKEN, *words).code == 0
    assert Browser(started["app"]).get("/api/runs").status == 401
    outcome = cli("watch", runs, "--port", 0, "--no-open", "--token", "short", *words)
    assert outcome.code == 2
    assert "--token: it must be 16 to 200 letters" in outcome.err


def test_a_host_that_is_not_here(cli: Cli, runs: Path) -> None:
    outcome = cli("watch", runs, "--host", "192.0.2.1", "--token", TOKEN, "--no-open")
    assert outcome.code == 2
    assert "cannot listen on 192.0.2.1" in outcome.err


def test_the_folder_of_a_run_opens_that_run(cli: Cli, runs: Path, started: dict[str, Any]) -> None:
    strange = fake_run(runs / "a b")
    outcome = cli("watch", strange, "--port", 0, "--open")
    url = f"http://127.0.0.1:{started['port']}/run/a%20b"
    assert outcome.out == f"watching {runs} at {url} (Ctrl-C ends)\n"
    assert started["opened"] == [url]
    found = Browser(started["app"]).get("/api/runs").json
    assert {run["id"] for run in found["runs"]} == {"one", "a b"}


def test_a_browser_is_opened_where_there_is_a_screen(
    cli: Cli, runs: Path, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("watch", runs, "--port", 0)  # nobody sits at a test's output
    assert started["opened"] == []
    monkeypatch.setattr(watch, "has_screen", lambda: True)
    cli("watch", runs, "--port", 0, "--no-open")
    assert started["opened"] == []
    cli("watch", runs, "--port", 0)
    assert len(started["opened"]) == 1


@pytest.mark.parametrize(
    ("terminal", "platform", "display", "screen"),
    [
        (True, "linux", ":0", True),
        (True, "linux", "", False),
        (True, "darwin", "", True),
        (False, "linux", ":0", False),
    ],
)
def test_where_there_is_a_screen(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, platform: str, display: str, screen: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", type("Out", (), {"isatty": lambda self: terminal})())
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert watch.has_screen() is screen


def test_allow_import_reaches_the_page(cli: Cli, runs: Path, started: dict[str, Any]) -> None:
    fake_run(runs / "own", config={"env": {"id": "mine:Env-v0"}, "agent": {}})
    for words, allowed in (([], False), (["--allow-import"], True)):
        assert cli("watch", runs, "--port", 0, "--no-open", *words).code == 0
        assert Browser(started["app"]).get("/api/run/own").json["can_rebuild"] is allowed


def test_hosts_of_this_machine() -> None:
    assert watch.is_loopback("127.0.0.1")
    assert watch.is_loopback("::1")
    assert watch.is_loopback("localhost")
    assert not watch.is_loopback("0.0.0.0")
    assert not watch.is_loopback("example.com")
    assert {socket.gethostname(), "127.0.0.1"} <= set(watch.own_names())
    with pytest.raises(UsageError, match="expected a name or an address"):
        watch.listen("no.such.host.invalid", 0)


# --- the whole program ----------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_program_serves_and_ends(runs: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "rlagents", "watch", str(runs), "--port", "0"]
    environment = os.environ | {"DISPLAY": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as program:
        try:
            assert program.stdout is not None
            line = program.stdout.readline()
            match = re.search(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends\)$", line.strip())
            assert match is not None, line
            connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=30)
            for path in ("/api/runs", "/api/run/one/../../../secret", "/api/run/%2e%2e"):
                connection.request("GET", path)
                answer = connection.getresponse()
                body = json.loads(answer.read())
                assert answer.status == (200 if path == "/api/runs" else 404)
                assert "runs" in body or "error" in body
            connection.request("GET", f"/api/run/one/video/{VIDEO}", headers={"Range": "bytes=5-9"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (206, bytes([5, 6, 7, 8, 9]))
            program.send_signal(number)  # while the connection is open
            out, err = program.communicate(timeout=30)
        finally:
            program.kill()
    assert (program.returncode, out, err) == (0, "", "")
