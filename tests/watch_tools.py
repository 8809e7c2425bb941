"""What the tests of `rlagents watch` share: runs made up by hand, and a browser of few lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

EPISODES = "episode,step,frames,env_index,seed,episodic_return,episodic_length,end,wall_time_s"
EVALUATIONS = (
    "step,frames,episodes,mean_return,std_return,iqm_return,min_return,max_return,wall_time_s"
)


def episode_line(number: int, episodic_return: object, *, end: str = "terminated") -> str:
    """The episode `number` ended at step 10 (number + 1), half a second after the one before."""
    step, time = 10 * (number + 1), 0.5 * (number + 1)
    return f"{number},{step},{4 * step},0,{900 + number},{episodic_return},10,{end},{time}"


def evaluation_line(step: int, mean: object) -> str:
    return f"{step},{4 * step},3,{mean},0.5,{mean},-1.0,9.0,{step / 100}"


def fake_run(
    directory: Path,
    *,
    returns: Sequence[object] = (),
    evaluations: Sequence[tuple[int, object]] = (),
    metrics: Sequence[Mapping[str, object]] = (),
    seed: int = 1,
    status: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write the folder of a run that nobody has trained; `changes` go into its config.json."""
    (directory / "videos").mkdir(parents=True)
    config = {
        "seed": seed,
        "total_steps": 1000,
        "env": {"id": "cartpole"},
        "agent": {"name": "dqn", "learning_rate": 0.001},
    }
    manifest = {
        "format": 1,
        "recipe": "cartpole-dqn",
        "config": config,
        "observation_space": {},
        "action_space": {},
        "reproducible": True,
        "difference": None,
        "threads": 1,
        "versions": {"python": "3"},
        "git_commit": None,
        "hardware": {"cores": 2},
    }
    (directory / "config.json").write_text(json.dumps(manifest | changes))
    known = {"state": "finished", "pid": 1, "step": 700, "heartbeat": 1000.0}
    (directory / "status.json").write_text(json.dumps(known | dict(status or {})))
    lines = [EPISODES, *(episode_line(number, one) for number, one in enumerate(returns))]
    (directory / "episodes.csv").write_text("\n".join(lines) + "\n")
    lines = [EVALUATIONS, *(evaluation_line(step, mean) for step, mean in evaluations)]
    (directory / "evaluations.csv").write_text("\n".join(lines) + "\n")
    (directory / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in metrics))
    return directory


def fake_video(directory: Path, stem: str, **about: Any) -> Path:
    """Write a video of 1000 bytes that nothing plays, with its JSON."""
    known = {
        "env_id": "cartpole",
        "step": 200,
        "values_are": "action values",
        "seed": 5,
        "episodic_return": 9.0,
        "episodic_length": 2,
        "frames_per_second": 50.0,
        "num_frames": 3,
    }
    lists = {
        "frame": [0, 1],
        "action": [1, 0],
        "reward": [1.0, 8.0],
        "values": [[0.5, 1.5], [2.5, 2.0]],
        "terminated": [False, True],
    }
    video = directory / "videos" / f"{stem}.mp4"
    video.write_bytes(bytes(number % 251 for number in range(1000)))
    video.with_name(f"{stem}.json").write_text(json.dumps(known | about | lists))
    return video


class Answer(NamedTuple):
    """What a server says."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        # Browsers know no NaN and no Infinity.
        return json.loads(self.body, parse_constant=lambda name: 1 / 0)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class Browser:
    """Asks an application, in this process, for exactly what it is told to ask for."""

    def __init__(self, app: Any, host: str = "127.0.0.1:8420") -> None:
        self.app = app
        self.host = host

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", target, headers)

    def post(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("POST", target, headers)

    def ask(self, method: str, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        path, _, query = target.partition("?")
        sent = {"host": self.host} | dict(headers or {})
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8420),
        }
        told: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            told.append(message)

        asyncio.run(self.app(scope, receive, send))
        start, *rest = told
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], names, b"".join(one.get("body", b"") for one in rest))
