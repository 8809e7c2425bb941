"""MarioEnv: episodes, their seeds, limits, copies and states."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from mario_tools import BACKENDS, needs_mario, way_through_1_1

from rlagents.envs.mario import MarioEnv, Played
from rlagents.envs.mario.backends import make_console
from rlagents.envs.mario.buttons import encode
from rlagents.envs.mario.game import Game
from rlagents.envs.mario.memory import Memory
from rlagents.envs.mario.tiles import TILE_SIZE
from rlagents.errors import UsageError

pytestmark = needs_mario
RIGHT, JUMP = 1, 2  # of the simple set
Step = tuple[bytes, float, bool, bool, dict[str, Any]]


def play(env: MarioEnv, actions: Sequence[int]) -> list[Step]:
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append((observation.tobytes(), reward, terminated, truncated, info))
        if terminated or truncated:
            break
    return seen


def draw(number: int, seed: int = 0) -> list[int]:
    generator = np.random.default_rng(seed)
    weights = np.array([1, 3, 5, 3, 5, 1, 1]) / 19
    return generator.choice(7, size=number, p=weights).tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=BACKENDS)
def env(request: pytest.FixtureRequest) -> Iterator[MarioEnv]:
    """The plainest environment of 1-1, on each console there is."""
    made = MarioEnv(1, 1, backend=request.param)
    yield made
    made.close()


def test_it_is_a_gymnasium_environment(env: MarioEnv) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render.*")
        check_env(env, skip_render_check=True)
    assert env.observation_space == gym.spaces.Box(0, 255, (240, 256, 3), np.uint8)
    assert env.action_space == gym.spaces.Discrete(7)
    assert env.get_action_meanings()[2] == "right+A"


def test_the_whole_way(env: MarioEnv) -> None:
    _, info = env.reset(seed=1)
    assert (info["x_pos"], info["flag_get"], info["life_lost"]) == (40, False, False)
    steps = play(env, way_through_1_1())
    assert len(steps) == 504
    assert sum(step[1] for step in steps) == 3021
    _, _, terminated, truncated, info = steps[-1]
    assert (terminated, truncated, info["flag_get"], info["x_pos"]) == (True, False, True, 3161)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


def test_observations_are_copies(env: MarioEnv) -> None:
    first, _ = env.reset(seed=1)
    kept = first.copy()
    expected = play(env, [RIGHT] * 10)
    assert np.array_equal(first, kept)
    env.reset(seed=1)[0][:] = 0
    again = []
    for _ in range(10):
        observation, *rest = env.step(RIGHT)
        again.append((observation.tobytes(), *rest))
        observation[:] = 7
    assert again == expected


def test_a_death_ends_the_episode_and_the_skip(env: MarioEnv) -> None:
    env.reset(seed=1)
    steps = play(env, [RIGHT] * 100)  # into the first goomba
    assert len(steps) < 100
    assert steps[-1][2:4] == (True, False)
    assert steps[-1][1] <= -15 + 3 * 3
    assert steps[-1][4]["flag_get"] is False


def test_two_environments_and_one_that_has_played(env: MarioEnv) -> None:
    other = MarioEnv(1, 1, backend=env._backend)
    other.reset(seed=5)
    play(other, draw(30, 1))
    env.reset(seed=3)
    other.reset(seed=3)
    assert play(env, draw(60)) == play(other, draw(60))
    other.close()


def test_frames_without_a_button_are_drawn_from_the_seed() -> None:
    env = MarioEnv(1, 1, noop_max=30, backend="nes-py")
    game = Game(make_console("nes-py"), (1, 1))
    seen, drawn = set(), set()
    for seed in range(4):
        game.reset()
        waits = int(np.random.default_rng(seed).integers(31))
        drawn.add(waits)
        for _ in range(waits):
            game.frame(0)
        observation, info = env.reset(seed=seed)
        assert np.array_equal(observation, game.console.screen())
        area = Memory(game.console.ram).area_number
        assert info == game.info() | {"life_lost": False, "area": area}
        seen.add(game.console.ram.tobytes())
    assert len(seen) == len(drawn) > 1
    env.close()
    game.console.close()


def test_a_death_in_the_frames_without_a_button_is_refused() -> None:
    """In 5-1 something runs into a Mario who stands still."""
    env = MarioEnv(5, 1, noop_max=1000)
    drawn = [int(np.random.default_rng(seed).integers(1001)) for seed in range(20)]
    env.reset(seed=next(seed for seed, waits in enumerate(drawn) if waits < 300))
    with pytest.raises(UsageError, match="noop_max: Mario died"):
        env.reset(seed=next(seed for seed, waits in enumerate(drawn) if waits > 400))
    env.close()


def test_sticky_frames_are_drawn_from_the_seed() -> None:
    env = MarioEnv(1, 1, noop_max=5, sticky_probability=0.5, frame_skip=3, backend="nes-py")
    game = Game(make_console("nes-py"), (1, 1))
    buttons = encode("simple").tolist()
    for seed in (0, 1):
        generator = np.random.default_rng(seed)
        game.reset()
        for _ in range(int(generator.integers(6))):
            game.frame(0)
        env.reset(seed=seed)
        pressed, repeated = 0, 0
        for action in draw(30, seed):
            total = 0.0
            for repeats in generator.random(3) < 0.5:
                repeated += bool(repeats) and pressed != buttons[action]
                pressed = pressed if repeats else buttons[action]
                total += game.frame(pressed).classic
            observation, reward, *_ = env.step(action)
            assert reward == total
            assert np.array_equal(observation, game.console.screen())
        assert repeated > 5
    env.close()
    game.console.close()


def test_without_a_seed_the_drawing_goes_on(env: MarioEnv) -> None:
    made = MarioEnv(1, 1, noop_max=30, backend=env._backend)
    generator = np.random.default_rng(4)
    for seed in (4, None, None):
        made.reset(seed=seed)
        waited = int(generator.integers(31))
        env.reset(seed=0)
        assert env._game is not None
        for _ in range(waited):
            env._game.frame(0)
        assert made._observe().tobytes() == env._observe().tobytes()
    made.close()


def test_stages_are_drawn_from_the_seed() -> None:
    stages = ["1-1", "1-2", "4-1"]
    env = MarioEnv(stages=stages, backend="nes-py")
    for seed in range(6):
        _, info = env.reset(seed=seed)
        drawn = stages[int(np.random.default_rng(seed).integers(3))]
        assert f"{info['world']}-{info['stage']}" == drawn
    env.close()


@pytest.mark.parametrize(("frame_skip", "limit", "steps"), [(4, 10, 3), (4, 8, 2), (1, 5, 5)])
def test_the_limit_of_frames(frame_skip: int, limit: int, steps: int) -> None:
    env = MarioEnv(frame_skip=frame_skip, max_episode_frames=limit, backend="nes-py")
    env.reset(seed=1)
    seen = play(env, [RIGHT] * 20)
    assert len(seen) == steps
    assert [step[2:4] for step in seen] == [(False, False)] * (steps - 1) + [(False, True)]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.close()


def test_stalling_is_cut_off_and_counts_from_the_last_new_pixel() -> None:
    env = MarioEnv(stall_steps=5, backend="nes-py")
    env.reset(seed=1)
    assert len(play(env, [0] * 20)) == 5
    env.reset(seed=1)
    seen = play(env, [0] * 3 + [RIGHT] * 6 + [6] * 30)  # 6 is left
    furthest = [step[4]["x_pos"] for step in seen]
    newest = max(range(len(seen)), key=lambda index: (furthest[index], -index))
    assert len(seen) == newest + 1 + 5
    assert seen[-1][2:4] == (False, True)
    env.close()


def test_another_area_or_life_begins_the_count_anew() -> None:
    env = MarioEnv(stall_steps=3, backend="nes-py")
    env.reset(seed=1)
    assert env._game is not None
    assert len(play(env, [0, 0])) == 2
    env._game.console.ram[0xE7] ^= 1  # as a pipe does
    assert len(play(env, [0] * 9)) == 1 + 3
    env.close()


def test_every_argument_changes_the_game(env: MarioEnv) -> None:
    actions = [RIGHT] * 5 + [6] * 6 + draw(12, 2)  # 6 is left

    def outcome(**changes: Any) -> list[Step]:
        made = MarioEnv(**({"backend": "nes-py"} | changes))
        made.reset(seed=1)
        seen = play(made, [action % int(made.action_space.n) for action in actions])
        made.close()
        return seen

    plain = outcome()
    for changes in (
        {"world": 1, "stage": 2},
        {"action_set": "right-only"},
        {"action_set": [["right"], ["A"]]},
        {"reward": "progress"},
        {"reward": "shaped"},
        {"observation": "tiles"},
        {"frame_skip": 2},
        {"sticky_probability": 0.9},
        {"noop_max": 30},
        {"max_episode_frames": 40},
        {"stall_steps": 1},
    ):
        assert outcome(**changes) != plain, changes


def test_rewards_are_those_of_the_frames() -> None:
    game = Game(make_console("nes-py"), (1, 1))
    kept: list[Played] = []

    def own(played: Played) -> float:
        kept.append(played)
        return float(played.after["x_pos"] - played.before["x_pos"])

    envs = {
        reward: MarioEnv(reward=reward, backend="nes-py") for reward in ("progress", "shaped", own)
    }
    for env in envs.values():
        env.reset(seed=1)
    last = game.info()
    over = False
    for action in draw(60, 3):
        frames = []
        for _ in range(4):
            frames.append(game.frame(int(encode("simple")[action])))
            if frames[-1].over:
                break
        found = {name: env.step(action) for name, env in envs.items()}
        info, over = frames[-1].info, frames[-1].over
        assert found["progress"][1] == sum(frame.progress for frame in frames)
        classic = sum(frame.classic for frame in frames)
        end = (50 if info["flag_get"] else -50) if over else 0
        shaped = (classic + (info["score"] - last["score"]) / 40 + end) / 10
        assert found["shaped"][1] == pytest.approx(shaped)
        assert found[own][1] == info["x_pos"] - last["x_pos"]
        assert kept[-1].classic == classic
        assert kept[-1].terminated == over == found[own][2]
        last = info
        if over:
            break
    for env in envs.values():
        env.close()


def test_the_whole_game_loses_lives() -> None:
    env = MarioEnv(None, backend="nes-py")
    _, info = env.reset(seed=1)
    assert info["life"] == 2
    lost, lives = 0, {2}
    for _ in range(400):
        _, reward, terminated, truncated, info = env.step(RIGHT)
        lives.add(info["life"])
        if info["life_lost"]:
            lost += 1
            assert reward <= -15 + 3 * 4
            assert not terminated
        if terminated:
            break
    assert terminated
    assert (lost, truncated) == (2, False)  # the last one ends the game
    assert lives == {2, 1, 0, 255}
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("observation", ["pixels", "tiles"])
def test_states_are_exact(backend: str, observation: Any) -> None:
    options: dict[str, Any] = {
        "stages": ["1-1", "1-2"],
        "observation": observation,
        "reward": "progress",
        "sticky_probability": 0.3,
        "noop_max": 9,
        "stall_steps": 40,
        "max_episode_frames": 200,
        "backend": backend,
    }
    env, other = MarioEnv(**options), MarioEnv(**options)
    env.reset(seed=1)
    other.reset(seed=2)
    play(env, draw(12))
    state, picture = env.save(), env._observe()
    assert isinstance(state, bytes)
    expected = play(env, draw(80, 1))
    assert expected[-1][2] or expected[-1][3]
    after = [env.reset()[0].tobytes(), play(env, draw(10))]  # drawn from the generator
    for each in (env, other):
        assert np.array_equal(each.restore(state), picture)
        assert each.save() == state
        assert play(each, draw(80, 1)) == expected
        assert [each.reset()[0].tobytes(), play(each, draw(10))] == after
        each.close()


def test_states_that_do_not_fit() -> None:
    env, other = MarioEnv(backend="nes-py"), MarioEnv(1, 2, backend="nes-py")
    with pytest.raises(gym.error.ResetNeeded):
        env.save()
    env.reset(seed=1)
    other.reset(seed=1)
    with pytest.raises(ValueError, match="which is not played here"):
        other.restore(env.save())
    env.close()
    other.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_episode_that_ends_before_it_begins(backend: str) -> None:
    env = MarioEnv(1, 2, noop_max=1000, backend=backend)
    waits = [int(np.random.default_rng(seed).integers(1001)) for seed in range(20)]
    env.reset(seed=int(np.argmin(waits)))
    with pytest.raises(UsageError, match=r"noop_max: .* leave nothing of an episode, got 1000"):
        env.reset(seed=int(np.argmax(waits)))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.close()


def test_actions_that_are_none_are_refused() -> None:
    env = MarioEnv()
    env.reset(seed=1)
    state = env.save()
    for action in (-1, 7):
        with pytest.raises(ValueError, match=f"expected an action from 0 to 6, got {action}"):
            env.step(action)
    assert env.save() == state
    env.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_states_are_refused_and_change_nothing(backend: str) -> None:
    env = MarioEnv(backend=backend, noop_max=9)
    env.reset(seed=1)
    early = env.save()
    play(env, draw(12))
    state = env.save()
    damaged = [
        b"",
        bytes(len(early)),
        early[:-1],
        early[: len(early) // 2],
        early[1:],
        early + b"x",
    ]
    damaged += [
        _with_a_bit_turned(early, place) for place in range(0, len(early), len(early) // 20)
    ]
    for one in damaged:
        with pytest.raises(ValueError, match="no state of MarioEnv"):
            env.restore(one)
        assert env.save() == state
    env.restore(early)
    assert env.save() == early
    env.close()


def _with_a_bit_turned(state: bytes, place: int) -> bytes:
    return state[:place] + bytes([state[place] ^ 1]) + state[place + 1 :]


def test_rendering() -> None:
    env = MarioEnv(render_mode="rgb_array", backend="nes-py")
    observation, _ = env.reset(seed=1)
    rendered = env.render()
    assert rendered is not None
    assert np.array_equal(rendered, observation)
    assert env.metadata["render_fps"] == pytest.approx(60.0988 / 4)
    env.close()
    assert MarioEnv(backend="nes-py").render() is None


def test_tiles_as_observation() -> None:
    env = MarioEnv(observation="tiles", backend="nes-py")
    observation, _ = env.reset(seed=1)
    assert observation.dtype == np.float32
    assert observation.shape == (TILE_SIZE,)
    assert env.observation_space.contains(observation)
    env.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"world": 9}, "from '1-1' to '8-4', got '9-1'"),
        ({"stage": 5}, "got '1-5'"),
        ({"stages": ["1-1", "x"]}, "got 'x'"),
        ({"reward": "clasic"}, "did you mean 'classic'?"),
        ({"observation": "tile"}, "observation: expected pixels or tiles, got 'tile'"),
        ({"frame_skip": 0}, "frame_skip: expected a whole number, 1 or more, got 0"),
        ({"noop_max": -1}, "noop_max: expected a whole number, 0 or more"),
        ({"stall_steps": 2.5}, "stall_steps: expected a whole number"),
        ({"max_episode_frames": 0}, "max_episode_frames: expected a whole number, 1 or more"),
        ({"sticky_probability": 1.5}, "sticky_probability: expected 0 to 1"),
        ({"sticky_probability": None}, "sticky_probability: expected 0 to 1, got None"),
        ({"render_mode": "human"}, "render_mode: expected 'rgb_array' or None"),
        ({"backend": "fast"}, "there is no backend 'fast'"),
        ({"action_set": [["fly"]]}, "no button 'fly'"),
    ],
)
def test_refusals(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        MarioEnv(**arguments)
    assert says in str(refused.value)
