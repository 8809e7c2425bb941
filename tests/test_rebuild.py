"""Training episodes on demand: the program that rebuilds one, and the queue in the server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
from watch_tools import Browser, fake_run

from rlagents.api import open_run
from rlagents.watch.app import create_app
from rlagents.watch.rebuild import BusyError, Job, Rebuilder, main, printer

# A program that does what it is told by the name of its run.
PROGRAM = """
import json, pathlib, sys, time
run, episode, output = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
with (run / "calls").open("a") as calls:
    calls.write(episode + "\\n")
print("an environment says hello")
print(json.dumps([1, 2]))
print(json.dumps({"done": 1, "steps": 4}), flush=True)
while run.name == "slow" and not (run / "go").exists():
    time.sleep(0.01)
if run.name == "fails":
    print("first line\\nIt rained.\\n", file=sys.stderr)
    sys.exit(1)
output.write_bytes(bytes(1000))
output.with_suffix(".json").write_text("{}")
print(json.dumps({"path": str(output)}))
"""


ONLY_A_VIDEO = """
import pathlib, sys
pathlib.Path(sys.argv[3]).write_bytes(b"no JSON beside it")
print('{"path": "training-0.mp4"}')
"""


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def done(job: Job) -> Job:
    wait(lambda: job.state != "playing")
    return job


@pytest.fixture
def make() -> Any:
    made: list[Rebuilder] = []

    def rebuilder(**options: Any) -> Rebuilder:
        made.append(Rebuilder(**({"command": [sys.executable, "-c", PROGRAM]} | options)))
        return made[-1]

    yield rebuilder
    for one in made:
        one.close()


def calls(run: Path) -> list[str]:
    return (run / "calls").read_text().split()


def test_an_episode_is_rebuilt_once(make: Any, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "one")
    rebuilder = make()
    assert rebuilder.find(run, 7) is None
    job = rebuilder.request(run, 7)
    assert rebuilder.request(run, 7) is job
    assert done(job).state == "ready"
    assert rebuilder.request(run, 7) is job is rebuilder.find(run, 7)
    assert job.video is not None
    assert job.video.name == "training-7.mp4"
    assert job.progress == 1
    assert calls(run) == ["7"]


def test_one_at_a_time_in_the_order_in_which_they_were_asked_for(make: Any, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "slow")
    rebuilder = make(queue=2)
    jobs = [rebuilder.request(run, 5)]
    wait(lambda: jobs[0].progress == 0.25)
    jobs += [rebuilder.request(run, 3), rebuilder.request(run, 4)]
    assert [job.state for job in jobs] == ["playing"] * 3
    assert calls(run) == ["5"]
    with pytest.raises(BusyError, match="2 episodes are waiting"):
        rebuilder.request(run, 9)
    assert rebuilder.request(run, 4) is jobs[2]  # known already
    (run / "go").touch()
    assert [done(job).state for job in jobs] == ["ready"] * 3
    assert calls(run) == ["5", "3", "4"]


def test_the_last_sentence_says_why_it_failed_and_it_can_be_tried_again(
    make: Any, tmp_path: Path
) -> None:
    run = fake_run(tmp_path / "fails")
    rebuilder = make()
    job = done(rebuilder.request(run, 1))
    assert (job.state, job.error, job.video) == ("failed", "It rained.", None)
    assert not job.folder.exists()
    assert done(rebuilder.request(run, 1)) is not job
    assert calls(run) == ["1", "1"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["false"], "exit code 1"),
        (["true"], "exit code 0"),  # it said nothing of a video
        (["/no/such/program"], "No such file"),
        ([sys.executable, "-c", "raise SystemExit('\\n')"], "exit code 1"),
        ([sys.executable, "-c", 'print(\'{"path": "/etc/passwd"}\')'], "exit code 0"),
        ([sys.executable, "-c", "import os; os.write(2, b'\\xff')"], "\ufffd"),
        ([sys.executable, "-c", 'print(\'{"path": "errors.txt"}\')'], "exit code 0"),
        ([sys.executable, "-c", ONLY_A_VIDEO], "exit code 0"),
        ([sys.executable, "-c", "raise SystemExit(200_000 * 'ab')"], "ababab"),
    ],
)
def test_a_program_that_does_not_do_its_work(
    make: Any, tmp_path: Path, command: list[str], says: str
) -> None:
    job = done(make(command=command).request(fake_run(tmp_path / "one"), 0))
    assert job.state == "failed"
    assert job.error is not None
    assert says in job.error
    assert len(job.error) <= 500


@pytest.mark.parametrize(
    "line",
    [
        *('{"done": 1, "steps": 0}', '{"done": 1' + "0" * 400 + ', "steps": 1}', "[" * 60_000),
        *('{"done": 5, "steps": 1}', '{"done": -5, "steps": 1}', '{"done": NaN, "steps": 1}'),
    ],
)
def test_nothing_that_an_environment_prints_is_a_hindrance(
    make: Any, tmp_path: Path, line: str
) -> None:
    run = fake_run(tmp_path / "slow")
    program = PROGRAM.replace('"done": 1', '"done": 0')
    program = program.replace('"an environment says hello"', repr(line))
    assert repr(line) in program
    job = make(command=[sys.executable, "-c", program]).request(run, 0)
    wait(lambda: (run / "calls").exists())
    assert job.progress == 0
    (run / "go").touch()
    assert done(job).state == "ready"


def test_a_line_without_end_takes_no_memory(make: Any, tmp_path: Path) -> None:
    read: list[int] = []

    class Lines(io.StringIO):
        def readline(self, size: int | None = -1) -> str:  # type: ignore[override]
            read.append(-1 if size is None else size)
            return super().readline(-1 if size is None else size)

    job = Job(tmp_path, 0, tmp_path)
    lines = Lines("x" * 200_000 + "\n" + '{"done": 1, "steps": 4}\n')
    assert Rebuilder._follow(job, lines) is None
    assert (set(read), job.progress) == ({1 << 16}, 0.25)


def test_what_an_environment_has_started_ends_with_it(make: Any, tmp_path: Path) -> None:
    program = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "(pathlib.Path(sys.argv[1]) / 'child').write_text(str(child.pid))\n"
    )
    run = fake_run(tmp_path / "one")
    job = done(make(command=[sys.executable, "-c", program]).request(run, 0))
    assert job.error == "Playing ended with exit code 0."
    child = int((run / "child").read_text())
    wait(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def test_no_place_for_videos(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fake_run(tmp_path / "runs" / "one", returns=[1.0])

    def full(prefix: str) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkdtemp", full)
        browser = Browser(create_app(tmp_path / "runs", rebuilder=make()))
        answer = browser.post("/api/run/one/training/0")
        assert answer.status == 500
        assert "(No space left on device); make room there" in answer.error
        assert browser.get("/api/run/one/training/0").json["state"] == "none"
    assert browser.post("/api/run/one/training/0").status == 200  # there is room again
    assert run.is_dir()


def test_the_program_ends_when_the_server_is_gone() -> None:
    program = (
        "import sys, time\n"
        "from rlagents.watch.rebuild import end_with\n"
        "end_with(sys.stdin)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(timeout=60) == 1


def test_an_episode_that_takes_too_long_is_given_up(make: Any, tmp_path: Path) -> None:
    job = done(make(limit_s=0.5).request(fake_run(tmp_path / "slow"), 0))
    assert job.error == "Episode 0 took more than 0.5 s to play."


def test_what_was_asked_for_longest_ago_is_dropped(make: Any, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "one")
    rebuilder = make(cache_bytes=2500)  # two videos, each of a little more than 1000
    for episode in (0, 1):
        done(rebuilder.request(run, episode))
    rebuilder.find(run, 0)
    third = done(rebuilder.request(run, 2))
    wait(lambda: rebuilder.find(run, 1) is None)
    assert [path.name for path in sorted(third.folder.parent.iterdir())] == ["1", "3"]
    small = make(cache_bytes=1)
    job = done(small.request(run, 5))
    assert small.find(run, 5) is job  # the newest stays, however large
    assert job.video is not None
    assert job.video.exists()


def test_a_resumed_run_is_played_anew(make: Any, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "one")
    rebuilder = make()
    job = done(rebuilder.request(run, 0))
    os.utime(run / "config.json", (1, 1))  # as resuming writes it
    assert rebuilder.find(run, 0) is None
    assert done(rebuilder.request(run, 0)) is not job


def test_closing_stops_what_is_played_and_removes_what_was(make: Any, tmp_path: Path) -> None:
    rebuilder = make()
    ready = done(rebuilder.request(fake_run(tmp_path / "one"), 0))
    job = rebuilder.request(fake_run(tmp_path / "slow"), 0)
    wait(lambda: job.progress == 0.25)
    child = rebuilder._child
    rebuilder.close()
    assert child.poll() is not None
    assert not ready.folder.parent.exists()


def test_progress_is_told_now_and_then() -> None:
    told: list[dict[str, int]] = []
    progress = printer(told.append, period_s=0)
    progress(0, 3)
    progress(1, 3)
    assert told == [{"done": 0, "steps": 3}, {"done": 1, "steps": 3}]
    seldom = printer(told.append, period_s=1000)
    for number in range(100):
        seldom(number, 100)
    assert told[2:] == [{"done": 0, "steps": 100}]


def test_progress_comes_before_each_step(tiny_run: Any, tmp_path: Path) -> None:
    run = open_run(tiny_run.directory)
    episode = run.episodes()[2]
    told: list[tuple[int, int]] = []
    run.record_training_episode(
        2, output=tmp_path / "film.mp4", progress=lambda *now: told.append(now)
    )
    steps = episode.episodic_length
    assert told == [(done, steps) for done in range(steps)]


# --- the real program, and the page's way to it ----------------------------------------


def test_the_program_says_in_a_sentence_why_not(
    tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tiny_run.directory), "99999", str(tmp_path / "film.mp4")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("There is no finished training episode 99999")
    assert err.count("\n") == 1


def test_without_mp4_it_is_the_video_that_can_be_written(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("rlagents.video.video_suffix", lambda: ".webm")
    monkeypatch.setattr("rlagents.naming.why_no_mp4", lambda: "PyAV is missing")
    assert main([str(tiny_run.directory), "0", str(tmp_path / "film.mp4")]) == 0
    path = tmp_path / "film.webm"
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"path": str(path)}
    assert path.is_file()


def test_a_training_episode_is_watched(tiny_run: Any) -> None:
    rebuilder = Rebuilder()
    browser = Browser(create_app(tiny_run.directory.parent, rebuilder=rebuilder))
    path = "/api/run/tiny/training/3"
    nothing = {"state": "none", "progress": 0.0, "video": None, "error": None}
    assert browser.get(path).json == nothing
    begun = browser.post(path)
    assert begun.status == 200
    assert begun.json["state"] == "playing"
    wait(lambda: browser.get(path).json["state"] != "playing")
    answer = browser.get(path).json
    assert answer == browser.post(path).json  # done already
    assert (answer["state"], answer["progress"], answer["error"]) == ("ready", 1, None)
    video = answer["video"]
    episode = open_run(tiny_run.directory).episodes()[3]
    assert video["id"] == "training-3"
    assert (video["kind"], video["episode"], video["step"]) == ("training", 3, episode.step)
    assert (video["return"], video["length"]) == (
        episode.episodic_return,
        episode.episodic_length,
    )
    assert video["seed"] == episode.seed
    data = browser.get("/api/run/tiny/video/training-3/data").json
    assert len(data["action"]) == episode.episodic_length
    film = browser.get("/api/run/tiny/video/training-3")
    assert film.headers["content-type"] == "video/mp4"
    part = browser.get("/api/run/tiny/video/training-3", {"range": "bytes=0-99"})
    assert (part.status, part.body) == (206, film.body[:100])
    job = rebuilder.find(tiny_run.directory.resolve(), 3)
    assert job is not None
    with av.open(str(job.video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == video["num_frames"]
    assert not list((tiny_run.directory / "videos").glob("*training*"))
    rebuilder.close()
    assert browser.get("/api/run/tiny/video/training-3").status == 404


@pytest.mark.parametrize(
    ("episode", "status", "says"),
    [
        ("99999", 404, "tiny has no finished training episode 99999; there are: 0 to"),
        ("-1", 400, "episode: expected a whole number"),
        ("x", 400, "episode: expected a whole number"),
    ],
)
def test_episodes_that_cannot_be_asked_for(
    tiny_run: Any, episode: str, status: int, says: str
) -> None:
    rebuilder = Rebuilder(command=["false"])
    browser = Browser(create_app(tiny_run.directory.parent, rebuilder=rebuilder))
    answer = browser.post(f"/api/run/tiny/training/{episode}")
    assert answer.status == status
    assert says in answer.error
    rebuilder.close()


def test_a_long_queue_is_said_so(tmp_path: Path, make: Any) -> None:
    runs = tmp_path / "runs"
    fake_run(runs / "slow", returns=[1.0] * 9)
    browser = Browser(create_app(runs, rebuilder=make(queue=1)))
    first = browser.post("/api/run/slow/training/0").json
    assert json.dumps(first)
    wait(lambda: browser.get("/api/run/slow/training/0").json["progress"] == 0.25)
    assert browser.post("/api/run/slow/training/1").json["state"] == "playing"
    answer = browser.post("/api/run/slow/training/2")
    assert answer.status == 429
    assert "try again" in answer.error
