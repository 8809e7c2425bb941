"""Episodes become videos: every frame, a JSON beside it, and nothing if another came out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import gymnasium as gym
import numpy as np
import pytest
from ale_py.env import AtariEnv

import rlagents
from rlagents.agents.base import Policy, ValueKind
from rlagents.envs import (
    EnvConfig,
    EnvSpec,
    Player,
    PlayerStep,
    find_env,
    make_player,
    make_vector_env,
    resolve_env_config,
)
from rlagents.errors import RLAgentsError, UsageError
from rlagents.film import Name, View, film
from rlagents.recording import rebuild_episode
from rlagents.takes import NotReproducedError, play_live

ATARI_OPTIONS = {
    "sticky_probability": 0.25,
    "noop_max": 30,
    "action_set": "stay-up-down",
    "max_episode_frames": 160,
}

COLUMNS = ("frame", "action", "reward", "values", "terminated")


class Played(NamedTuple):
    """An episode as a vector environment played it."""

    config: EnvConfig
    spec: EnvSpec
    seed: int
    actions: Any
    rewards: list[float]
    terminated: bool


def play(env_id: str, seed: int, length: int = 10**6, **options: Any) -> Played:
    spec = find_env(env_id)
    config = resolve_env_config(EnvConfig(id=env_id, **options), spec)
    env = make_vector_env(spec, config, 1)
    number = int(env.action_space.n)  # type: ignore[attr-defined]
    draw = np.random.default_rng(seed)
    env.reset(np.ones(1, dtype=np.bool_), [seed])
    actions: list[int] = []
    rewards: list[float] = []
    terminated = False
    for _ in range(length):
        actions.append(int(draw.integers(number)))
        env.send(np.array(actions[-1:]))
        step = env.recv()
        rewards.append(float(step.reward[0]))
        terminated = bool(step.terminated[0])
        if terminated or step.truncated[0]:
            break
    env.close()
    return Played(config, spec, seed, np.array(actions), rewards, terminated)


@pytest.fixture(scope="module")
def pong() -> Played:
    """A sticky game of Pong, cut off after 40 agent steps."""
    return play("pong", 3, **ATARI_OPTIONS)


@pytest.fixture(scope="module")
def cartpole() -> Played:
    return play("cartpole", 5)


@pytest.fixture
def open_player() -> Iterator[Callable[..., Player]]:
    opened: list[Player] = []

    def open_one(spec: EnvSpec, config: EnvConfig) -> Player:
        opened.append(make_player(spec, config))
        return opened[-1]

    yield open_one
    for player in opened:
        player.close()


class Recorded(NamedTuple):
    path: Path
    sidecar: dict[str, Any]
    frames: list[Any]


def load(path: Path) -> Recorded:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return Recorded(path, sidecar, frames)


def name_in(folder: Path) -> Name:
    return lambda result, _: folder / "videos" / f"return-{result:g}.mp4"


def rebuild(
    player: Player,
    played: Played,
    folder: Path,
    *,
    actions: Any = None,
    episodic_return: float | None = None,
    values: Any = None,
    scale: int = 1,
) -> Recorded:
    path = rebuild_episode(
        player,
        played.seed,
        played.actions if actions is None else actions,
        episodic_return=sum(played.rewards) if episodic_return is None else episodic_return,
        values=values,
        view=View(scale),
        path=name_in(folder),
        about={"env_id": played.config.id, "step": 12},
    )
    return load(path)


# Rebuilding


def test_pong_is_rebuilt_with_every_frame(
    pong: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    length = len(pong.actions)
    assert length == 40
    recorded = rebuild(open_player(pong.spec, pong.config), pong, tmp_path)
    assert recorded.path.name == f"return-{sum(pong.rewards):g}.mp4"
    assert sorted(path.suffix for path in recorded.path.parent.iterdir()) == [".json", ".mp4"]
    assert len(recorded.frames) == 1 + 4 * length
    assert recorded.frames[0].shape == (210, 160, 3)
    sidecar = recorded.sidecar
    assert sidecar["env_id"] == "pong"
    assert sidecar["step"] == 12
    assert sidecar["seed"] == pong.seed
    assert sidecar["num_frames"] == len(recorded.frames)
    assert sidecar["frames_per_second"] == 60
    assert sidecar["episodic_length"] == length
    assert sidecar["action"] == pong.actions.tolist()
    assert sidecar["reward"] == pong.rewards
    assert sidecar["episodic_return"] == sum(pong.rewards)
    assert sidecar["values"] == [None] * length
    assert sidecar["terminated"] == [False] * length  # it was truncated
    # The picture that an action answers to, and every fourth from there on.
    assert sidecar["frame"] == list(range(0, 4 * length, 4))


def test_cartpole_is_rebuilt_with_every_frame(
    cartpole: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    length = len(cartpole.actions)
    assert cartpole.terminated
    recorded = rebuild(open_player(cartpole.spec, cartpole.config), cartpole, tmp_path)
    assert len(recorded.frames) == 1 + length
    assert recorded.sidecar["num_frames"] == 1 + length
    assert recorded.sidecar["frame"] == list(range(length))
    assert recorded.sidecar["reward"] == [1.0] * length
    assert recorded.sidecar["terminated"] == [False] * (length - 1) + [True]
    assert recorded.sidecar["frames_per_second"] == 50
    # The cart moves.
    assert any(
        np.abs(frame - recorded.frames[0].astype(int)).max() > 50 for frame in recorded.frames
    )


@pytest.mark.parametrize("frame_skip", [1, 3])
def test_skipped_frames_are_shown_too(
    open_player: Callable[..., Player], tmp_path: Path, frame_skip: int
) -> None:
    played = play("cartpole", 5, frame_skip=frame_skip)
    recorded = rebuild(open_player(played.spec, played.config), played, tmp_path)
    frames = recorded.sidecar["frame"]
    assert frames == list(range(0, frame_skip * len(played.actions), frame_skip))
    # The last skip ends with the episode; each frame is worth 1.
    assert len(recorded.frames) == 1 + sum(played.rewards)
    assert recorded.sidecar["reward"] == played.rewards


def test_the_sidecar_is_by_agent_step(
    pong: Played, cartpole: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    for played in (pong, cartpole):
        recorded = rebuild(open_player(played.spec, played.config), played, tmp_path)
        sidecar = recorded.sidecar
        for column in COLUMNS:
            assert len(sidecar[column]) == len(played.actions)
        assert np.all(np.diff(sidecar["frame"]) > 0)
        assert sidecar["frame"][-1] < sidecar["num_frames"] - 1
        assert sum(sidecar["reward"]) == sidecar["episodic_return"] == sum(played.rewards)


def test_values_are_kept(
    cartpole: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    values = np.random.default_rng(0).normal(size=(len(cartpole.actions), 2)).astype(np.float32)
    player = open_player(cartpole.spec, cartpole.config)
    recorded = rebuild(player, cartpole, tmp_path, values=values)
    assert np.array_equal(np.array(recorded.sidecar["values"], dtype=np.float32), values)


@pytest.mark.parametrize("scale", [2, 3])
def test_pixels_are_enlarged(
    pong: Played, open_player: Callable[..., Player], tmp_path: Path, scale: int
) -> None:
    player = open_player(pong.spec, pong.config)
    recorded = rebuild(player, pong, tmp_path, scale=scale)
    assert recorded.frames[0].shape == (210 * scale, 160 * scale, 3)


def test_a_player_plays_many_episodes(
    pong: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    player = open_player(pong.spec, pong.config)
    first = rebuild(player, pong, tmp_path / "a")
    second = rebuild(player, pong, tmp_path / "b")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sidecar == second.sidecar


@pytest.mark.parametrize("game", ["breakout", "pong"])
def test_a_sticky_game_with_noops_is_the_same_step_by_step(
    open_player: Callable[..., Player], game: str
) -> None:
    """The player steps frame by frame and in colour, the vector environment skips four."""
    played = play(
        f"atari/{game}", 9, 500, sticky_probability=0.25, noop_max=30, max_episode_frames=2000
    )
    assert np.count_nonzero(played.rewards) > 1
    player = open_player(played.spec, played.config)
    shown = player.reset(played.seed)
    assert len(shown.frames) == 1
    rewards = []
    for action in played.actions:
        shown = player.step(int(action))
        rewards.append(shown.reward)
        over = shown.terminated or shown.truncated
        assert len(shown.frames) == 4 or (over and 1 <= len(shown.frames) <= 4)
        assert over is (len(rewards) == len(played.actions))
    assert rewards == played.rewards
    assert shown.terminated is played.terminated


def test_a_truncated_episode_is_shown_to_its_last_frame(open_player: Callable[..., Player]) -> None:
    spec = find_env("pong")
    cut, whole = (
        open_player(spec, resolve_env_config(EnvConfig(id="pong", max_episode_frames=limit), spec))
        for limit in (18, 1000)
    )
    cut.reset(3)
    whole.reset(3)
    for number in range(5):  # the limit lies within the fifth
        shown, expected = cut.step(1), whole.step(1)
        assert np.array_equal(shown.frames, expected.frames)
        assert len(shown.frames) == 4
        assert (shown.truncated, expected.truncated) == (number == 4, False)


def test_the_frames_are_those_that_the_agent_saw(open_player: Callable[..., Player]) -> None:
    """Shrunk and grey, the last two frames of a skip make the agent's picture."""
    spec = find_env("pong")
    config = resolve_env_config(EnvConfig(id="pong", **ATARI_OPTIONS), spec)
    env, player = make_vector_env(spec, config, 1), open_player(spec, config)
    env.reset(np.ones(1, dtype=np.bool_), [3])
    player.reset(3)
    # By blocks of pixels, so that the way of shrinking does not matter.
    for action in np.random.default_rng(0).integers(3, size=30):
        env.send(np.array([action]))
        seen = env.recv().observation[0, -1].astype(float)
        gray = [frame @ [0.299, 0.587, 0.114] for frame in player.step(int(action)).frames[-2:]]
        shown = np.maximum(*gray)
        ours = shown.reshape(7, 30, 4, 40).mean(axis=(1, 3))
        theirs = seen.reshape(7, 12, 4, 21).mean(axis=(1, 3))
        assert np.abs(ours - theirs).max() < 2
    env.close()


def test_every_frame_is_the_emulators_own_screen(open_player: Callable[..., Player]) -> None:
    spec = find_env("pong")
    player = open_player(spec, resolve_env_config(EnvConfig(id="pong", noop_max=0), spec))
    emulator = AtariEnv("pong", frameskip=1, repeat_action_probability=0.0)
    emulator.reset(seed=1)
    assert np.array_equal(player.reset(1).frames[0], emulator.step(1)[0])  # it presses FIRE first
    for action in np.random.default_rng(0).integers(6, size=50):
        shown = player.step(int(action))
        for frame in shown.frames:
            assert np.array_equal(frame, emulator.step(int(action))[0])


def test_an_unfinished_episode_is_shown_as_far_as_it_went(
    pong: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    part = pong._replace(actions=pong.actions[:7], rewards=pong.rewards[:7])
    recorded = rebuild(open_player(pong.spec, pong.config), part, tmp_path)
    assert len(recorded.frames) == 1 + 4 * 7
    assert recorded.sidecar["reward"] == pong.rewards[:7]


# What cannot be rebuilt


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("off", [1.0, -0.5])
def test_another_return_is_refused_and_leaves_nothing(
    cartpole: Played, open_player: Callable[..., Player], tmp_path: Path, off: float
) -> None:
    player = open_player(cartpole.spec, cartpole.config)
    wrong = sum(cartpole.rewards) + off
    with pytest.raises(NotReproducedError, match=f"not {wrong:g}") as caught:
        rebuild(player, cartpole, tmp_path, episodic_return=wrong)
    assert f"{sum(cartpole.rewards):g} after {len(cartpole.actions)} steps" in str(caught.value)
    assert isinstance(caught.value, RLAgentsError)
    assert not leftovers(tmp_path)


def test_an_episode_that_ends_too_early_is_refused(
    cartpole: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    player = open_player(cartpole.spec, cartpole.config)
    longer = np.append(cartpole.actions, [0, 1])
    with pytest.raises(NotReproducedError):
        rebuild(player, cartpole, tmp_path, actions=longer)
    assert not leftovers(tmp_path)


class Gusty(gym.Env[Any, int]):
    """Rewards that no float32 can hold, of both signs."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.time = 0

    def reset(self, *, seed: int | None = None, **_: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        reward = float(self.np_random.normal(0, 2))
        return np.zeros(1, np.float32), reward, self.time == 300, False, {}

    def render(self) -> Any:
        return np.zeros((16, 16, 3), dtype=np.uint8)


def test_rewards_are_rounded_as_in_training(
    open_player: Callable[..., Player], tmp_path: Path
) -> None:
    rlagents.register_env(EnvSpec(name="gusty", make=Gusty))
    for seed in range(8):
        played = play("gusty", seed)
        player = open_player(played.spec, played.config)
        recorded = rebuild(player, played, tmp_path)
        assert recorded.sidecar["reward"] == played.rewards
        assert recorded.sidecar["episodic_return"] == sum(played.rewards)


class LateGusts(Gusty):
    """As `Gusty`, but what comes after the check at the start of a run differs every time."""

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, *rest = super().step(action)
        return observation, np.random.default_rng().random() if self.time > 64 else reward, *rest


def test_what_turns_out_not_to_reproduce_itself_is_shown_live(tmp_path: Path) -> None:
    rlagents.register_env(EnvSpec(name="late-gusts", make=LateGusts))
    small = {
        "env.num_envs": 2,
        "agent.learning_starts": 100,
        "replay.capacity": 400,
        "network.hidden_sizes": [8],
        "evaluation.period_steps": 400,
        "evaluation.episodes": 1,
        "checkpoint.period_steps": 400,
    }
    run = rlagents.train(
        "cartpole-dqn",
        {"env.id": "late-gusts", **small},
        total_steps=400,
        runs_dir=tmp_path,
        quiet=True,
    )
    assert json.loads((run.directory / "config.json").read_text())["reproducible"]
    assert "switched off" not in (run.directory / "run.log").read_text()
    assert len(list((run.directory / "videos").glob("*.mp4"))) == 1
    (path,) = run.record(output=tmp_path / "again.mp4")
    assert load(path).sidecar["episodic_length"] == 300


def test_the_smallest_difference_is_seen(
    cartpole: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    player = open_player(cartpole.spec, cartpole.config)
    wrong = sum(cartpole.rewards) + 2.0**-24  # half of what a float32 resolves next to 1
    with pytest.raises(NotReproducedError):
        rebuild(player, cartpole, tmp_path, episodic_return=wrong)


def test_another_seed_is_refused(
    cartpole: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    player = open_player(cartpole.spec, cartpole.config)
    other = cartpole._replace(seed=cartpole.seed + 4)
    with pytest.raises(NotReproducedError):
        # Pushed always to one side, a pole falls after a number of steps that the seed decides.
        rebuild(player, other, tmp_path, actions=np.ones(500, dtype=int), episodic_return=500)
    assert not leftovers(tmp_path)


def test_a_player_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Failing:
        frames_per_second = 30.0
        action_space = gym.spaces.Discrete(2)
        action_names = None
        steps = 0

        def reset(self, seed: int) -> PlayerStep:
            return self.show()

        def step(self, action: int) -> PlayerStep:
            self.steps += 1
            if self.steps == 40:
                raise RuntimeError("no licence")
            return self.show()

        def show(self) -> PlayerStep:
            frame = np.zeros((16, 16, 3), dtype=np.uint8)
            return PlayerStep(None, 0.0, False, False, [frame])

        def close(self) -> None: ...

    with pytest.raises(RuntimeError, match="no licence"):
        rebuild_episode(
            cast(Player, Failing()),
            1,
            np.zeros(60, dtype=np.int64),
            episodic_return=0,
            values=None,
            view=View(),
            path=name_in(tmp_path),
            about={},
        )
    assert not leftovers(tmp_path)


# Playing live


class Moody(gym.Env[Any, int]):
    """Never plays the same game twice; shows its mood."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012
    observation_space = gym.spaces.Box(0, 255, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    moods = np.random.default_rng()

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.mood, self.time = 0, 0

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self.mood, self.time = int(self.moods.integers(256)), 0
        return self.observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        self.mood = int(self.moods.integers(256))
        return self.observe(), action + self.mood / 1000, self.time == 9, False, {}

    def observe(self) -> Any:
        return np.array([self.mood, self.time], dtype=np.float32)

    def render(self) -> Any:
        return np.full((20, 30, 3), self.mood, dtype=np.uint8)


class ByMood:
    """Prefers action 1 in a good mood."""

    def __init__(self, kind: ValueKind = "action values") -> None:
        self.kind = kind

    def values(self, observations: Any) -> Any:
        assert observations.shape == (1, 2)
        share = observations[:, 0] / 255
        return np.stack([1 - share, share], axis=1).astype(np.float32)


def record_live(
    player: Player, folder: Path, seed: int = 1, epsilon: float = 0.0, *, sample: bool = False
) -> Recorded:
    policy = cast(Policy, ByMood("probabilities" if sample else "action values"))
    take = play_live(player, policy, seed, epsilon=epsilon, sample=sample)
    return load(film([take], View(), path=name_in(folder), about={"env_id": "moody"}))


MOODY = EnvSpec(name="moody", make=Moody)


def test_an_environment_that_does_not_reproduce_itself_is_played_live(
    open_player: Callable[..., Player], tmp_path: Path
) -> None:
    player = open_player(MOODY, resolve_env_config(EnvConfig(id="moody"), MOODY))
    recorded = record_live(player, tmp_path)
    sidecar = recorded.sidecar
    assert len(recorded.frames) == 10
    assert sidecar["episodic_length"] == 9
    assert sidecar["env_id"] == "moody"
    assert sidecar["frames_per_second"] == 12
    assert [len(sidecar[column]) for column in COLUMNS] == [9] * 5
    assert sidecar["terminated"] == [False] * 8 + [True]
    assert sidecar["episodic_return"] == pytest.approx(sum(sidecar["reward"]))
    assert recorded.path.name == f"return-{sidecar['episodic_return']:g}.mp4"
    for frame, action, values in zip(
        sidecar["frame"], sidecar["action"], sidecar["values"], strict=True
    ):
        assert action == int(np.argmax(values))
        # The values are those of the picture that stands at their frame.
        assert abs(recorded.frames[frame].mean() - 255 * values[1]) < 5


@pytest.mark.parametrize(("epsilon", "sample"), [(1.0, False), (0.0, True)])
def test_live_play_draws_as_an_evaluation_does(
    open_player: Callable[..., Player], tmp_path: Path, epsilon: float, sample: bool
) -> None:
    player = open_player(MOODY, resolve_env_config(EnvConfig(id="moody"), MOODY))
    off = 0
    for seed in range(6):
        recorded = record_live(player, tmp_path, seed, epsilon, sample=sample)
        best = [int(np.argmax(values)) for values in recorded.sidecar["values"]]
        off += best != recorded.sidecar["action"]
    assert off > 0


class Blind(gym.Env[Any, int]):
    """Has nothing to show."""

    observation_space = gym.spaces.Box(0, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), 0.0, False, False, {}


class Modal(Blind):
    """Takes a render mode, but has none for pictures."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = None


@pytest.mark.parametrize("make", [Blind, Modal])
def test_an_environment_without_pictures_says_what_to_do(make: type[gym.Env[Any, int]]) -> None:
    spec = EnvSpec(name="blind", make=make)
    config = resolve_env_config(EnvConfig(id="blind"), spec)
    with pytest.raises(UsageError, match=r"blind.*rgb_array.*--recording\.enabled false"):
        make_player(spec, config)


def test_a_player_wraps_as_the_vector_environment_does(
    open_player: Callable[..., Player],
) -> None:
    spec = EnvSpec(name="moody", make=Moody, action_sets={"still": (0,)}, max_episode_frames=4)
    config = resolve_env_config(EnvConfig(id="moody", action_set="still"), spec)
    player = open_player(spec, config)
    assert player.action_space == gym.spaces.Discrete(1)
    assert player.reset(1).observation is not None
    ends: Sequence[bool] = [player.step(0).truncated for _ in range(4)]
    assert ends == [False, False, False, True]


# What actions are called


def names(spec: EnvSpec, open_player: Callable[..., Player], **options: Any) -> Any:
    config = resolve_env_config(EnvConfig(id=spec.name, **options), spec)
    return open_player(spec, config).action_names


MINIMAL = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")


def test_atari_actions_have_ales_names(open_player: Callable[..., Player]) -> None:
    pong = find_env("pong")
    assert names(pong, open_player) == MINIMAL
    assert names(pong, open_player, action_set="up-down") == ("RIGHT", "LEFT")
    assert names(pong, open_player, action_set="stay-up-down") == ("NOOP", "RIGHT", "LEFT")
    full = names(pong, open_player, action_set="full")
    assert len(full) == 18
    assert full[:6] == ("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN")
    assert names(find_env("atari/freeway"), open_player) == ("NOOP", "UP", "DOWN")


def test_cartpole_actions_have_names(open_player: Callable[..., Player]) -> None:
    assert names(find_env("cartpole"), open_player) == ("left", "right")


class Named(Gusty):
    """Says itself what its actions mean."""

    action_space = gym.spaces.Discrete(3)

    def get_action_meanings(self) -> list[str]:
        return ["stay", "up", "down"]


def test_other_environments_name_their_actions_if_they_can(
    open_player: Callable[..., Player],
) -> None:
    sets = {"move": (1, 2), "back": (2, 0)}
    named = EnvSpec(name="named", make=Named, action_sets=sets)
    assert names(named, open_player) == ("stay", "up", "down")
    assert names(named, open_player, action_set="move") == ("up", "down")
    assert names(named, open_player, action_set="back") == ("down", "stay")
    own = dataclasses.replace(named, action_names=("a", "b", "c"))
    assert names(own, open_player, action_set="back") == ("c", "a")
    assert names(EnvSpec(name="gusty", make=Gusty), open_player) is None


def test_names_of_actions_that_a_wrapper_has_changed_are_not_used(
    open_player: Callable[..., Player],
) -> None:
    def make(render_mode: str | None = None) -> gym.Env[Any, Any]:
        env = Named(render_mode)
        return gym.wrappers.TransformAction(env, lambda action: 2 * action, gym.spaces.Discrete(2))

    assert names(EnvSpec(name="wrapped", make=make), open_player) is None


def test_a_spec_that_names_too_few_actions_is_refused(open_player: Callable[..., Player]) -> None:
    spec = EnvSpec(name="named", make=Named, action_names=("stay", "up"))
    with pytest.raises(UsageError, match=r"named: action_names has 2 names.*Discrete\(3\)"):
        names(spec, open_player)


def test_the_sidecar_names_the_actions(
    cartpole: Played, open_player: Callable[..., Player], tmp_path: Path
) -> None:
    recorded = rebuild(open_player(cartpole.spec, cartpole.config), cartpole, tmp_path)
    assert recorded.sidecar["action_names"] == ["left", "right"]
    rlagents.register_env(EnvSpec(name="gusty", make=Gusty))
    played = play("gusty", 1)
    nameless = rebuild(open_player(played.spec, played.config), played, tmp_path / "b")
    assert nameless.sidecar["action_names"] is None
