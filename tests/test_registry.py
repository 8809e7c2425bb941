"""What an `[env] id` means, and that every `[env]` option does what it says or is refused."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ale_py
import ale_py.vector_env
import gymnasium as gym
import numpy as np
import pytest
from ale_py.env import AtariEnv
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rlagents
from rlagents.envs import (
    EnvConfig,
    EnvSpec,
    Preprocessing,
    VectorEnv,
    VectorStep,
    find_env,
    list_envs,
    make_eval_env,
    make_player,
    make_vector_env,
    register_env,
    registry,
    resolve_env_config,
)
from rlagents.envs.atari import AtariVectorEnv, games
from rlagents.envs.cartpole import CartPoleVectorEnv
from rlagents.errors import UsageError
from rlagents.spaces import FrameStack

UP = 2  # RIGHT in Pong's minimal actions
DOWN = 3


class Pictures(gym.Env[Any, int]):
    """Shows a flat picture, brighter from frame to frame; each frame is worth 1."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium has it

    def __init__(
        self,
        shape: tuple[int, ...] = (48, 32, 3),
        length: int = 50,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = gym.spaces.Discrete(3)
        self.render_mode = render_mode
        self._length = length
        self._frame = 0

    def _observe(self) -> Any:
        return np.full(self.observation_space.shape, 10 + self._frame, dtype=np.uint8)

    def render(self) -> Any:
        return self._observe()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._frame = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._frame += 1
        return self._observe(), 1.0, self._frame >= self._length, False, {}


class Numbers(gym.Env[Any, int]):
    """Observes [frame, last action], in whatever space it is given."""

    def __init__(self, space: gym.Space[Any] | None = None, actions: int = 3) -> None:
        self.observation_space = space or gym.spaces.Box(-1e9, 1e9, (2,), np.float64)
        self.action_space = gym.spaces.Discrete(actions)
        self._frame = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._frame = 0
        return self._observe(0), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._frame += 1
        return self._observe(action), 1.5, False, False, {}

    def _observe(self, action: int) -> Any:
        if isinstance(self.observation_space, gym.spaces.Box):
            return np.array([self._frame + 0.25, action], dtype=self.observation_space.dtype)
        return self.observation_space.sample()


def resolve(spec: EnvSpec, **options: Any) -> EnvConfig:
    return resolve_env_config(EnvConfig(id=spec.name, **options), spec)


@pytest.fixture
def make() -> Iterator[Callable[..., VectorEnv]]:
    opened: list[VectorEnv] = []

    def make_one(env: str | EnvSpec, num_envs: int = 1, **options: Any) -> VectorEnv:
        spec = find_env(env) if isinstance(env, str) else env
        vector = make_vector_env(spec, resolve(spec, num_envs=num_envs, **options), num_envs)
        opened.append(vector)
        return vector

    yield make_one
    for vector in opened:
        vector.close()


@pytest.fixture
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget afterwards what a test has registered."""
    monkeypatch.setattr(registry, "_registered", {})


def begin(env: VectorEnv, seed: int = 1) -> Any:
    mask = np.ones(env.num_envs, dtype=np.bool_)
    return env.reset(mask, list(range(seed, seed + env.num_envs)))


def step(env: VectorEnv, action: int = 0) -> VectorStep:
    env.send(np.full(env.num_envs, action, dtype=np.int64))
    return env.recv()


# Names


def test_cartpole(make: Callable[..., VectorEnv]) -> None:
    env = make("cartpole", 2)
    assert isinstance(env, CartPoleVectorEnv)
    assert env.observation_space.shape == (4,)
    assert env.action_space == gym.spaces.Discrete(2)
    assert begin(env).shape == (2, 4)
    assert find_env("cartpole").reward_threshold == 475


@pytest.mark.parametrize("env_id", ["pong", "atari/breakout", "ALE/Pong-v5"])
def test_atari_takes_the_native_path(make: Callable[..., VectorEnv], env_id: str) -> None:
    env = make(env_id, 2)
    assert isinstance(env, AtariVectorEnv)
    observation = begin(env)
    assert observation.shape == (2, 4, 84, 84)
    assert observation.dtype == np.uint8
    assert env.observation_space == FrameStack(4, 84, 84)
    assert find_env(env_id).name == env_id


def test_emulators_get_a_thread_for_each_core_that_the_process_may_use(
    make: Callable[..., VectorEnv], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    class Ale(ale_py.vector_env.AtariVectorEnv):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            given.append(kwargs["num_threads"])
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(ale_py.vector_env, "AtariVectorEnv", Ale)
    for cores in ({3}, {0, 2, 5}):  # such as `taskset --cpu-list 0,2,5` leaves
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores, raising=False)
        make("pong", 2)
    make("pong", 2, kwargs={"num_threads": 5})
    assert given == [1, 2, 5]


def test_evaluation_plays_games_in_groups_of_four() -> None:
    def made(env_id: str, number: int) -> list[int]:
        spec = find_env(env_id)
        config = resolve_env_config(EnvConfig(id=env_id), spec)
        env = make_eval_env(spec, config, number)
        assert env.num_envs == number
        env.close()
        return [group.num_envs for group in getattr(env, "_groups", [env])]

    assert made("pong", 10) == [4, 4, 2]
    assert made("pong", 4) == [4]
    assert made("cartpole", 10) == [10]  # steps only those that play anyway


def test_every_game_that_ale_ships_resolves() -> None:
    shipped = {path.stem for path in (Path(ale_py.__file__).parent / "roms").glob("*.bin")}
    assert len(shipped) > 100
    assert set(games()) == shipped
    for game in shipped:
        config = resolve(find_env(f"atari/{game}"))
        assert config.frame_skip == 4
        assert config.frame_size == 84
        assert config.frame_stack == 4
        assert config.noop_max == 30
        assert config.sticky_probability == 0
        assert config.action_set == "minimal"
        assert config.max_episode_frames == 108_000


def test_every_ale_id_of_gymnasium_means_the_same_game() -> None:
    gym.register_envs(ale_py)
    ids = [env_id for env_id in gym.registry if env_id.startswith("ALE/")]
    assert len(ids) > 100
    for env_id in ids:
        spec = find_env(env_id)
        native = find_env(f"atari/{gym.spec(env_id).kwargs['game']}")
        assert isinstance(spec.make_vector, functools.partial)
        assert isinstance(native.make_vector, functools.partial)
        assert spec.make_vector.args == native.make_vector.args
        assert resolve(spec).frame_skip == 4


def test_stickiness_comes_from_the_ale_id_unless_given() -> None:
    spec = find_env("ALE/Pong-v5")
    assert resolve(spec).sticky_probability == 0.25
    assert resolve(spec, sticky_probability=0.5).sticky_probability == 0.5
    assert resolve(spec, sticky_probability=0.0).sticky_probability == 0
    assert resolve(find_env("pong")).sticky_probability == 0


def test_a_gymnasium_id_with_vectors(make: Callable[..., VectorEnv]) -> None:
    env = make("Acrobot-v1", 2)
    observation = begin(env, seed=7)
    reference = gym.make("Acrobot-v1")
    for index in range(2):
        expected, _ = reference.reset(seed=7 + index)
        assert np.array_equal(observation[index], expected)
    expected, reward, *_ = reference.step(1)
    got = step(env, 1)
    assert np.array_equal(got.observation[1], expected)
    assert got.reward[1] == reward
    assert find_env("Acrobot-v1").reward_threshold == gym.spec("Acrobot-v1").reward_threshold


def test_discrete_observations_become_one_hot(make: Callable[..., VectorEnv]) -> None:
    env = make("FrozenLake-v1", kwargs={"is_slippery": False})
    observation = begin(env)
    assert observation.dtype == np.float32
    assert observation.tolist() == [[1.0] + [0.0] * 15]
    right = step(env, 2).observation
    assert right.tolist() == [[0.0, 1.0] + [0.0] * 14]


def test_tuple_and_dict_observations_become_vectors(make: Callable[..., VectorEnv]) -> None:
    assert begin(make("Blackjack-v1")).shape == (1, 32 + 11 + 2)
    space = gym.spaces.Dict(
        {"a": gym.spaces.Box(0, 1, (2, 2), np.float32), "b": gym.spaces.Discrete(3)}
    )
    assert begin(make(EnvSpec(name="dict", make=lambda: Numbers(space)))).shape == (1, 7)


def test_observations_without_a_fixed_size_are_refused() -> None:
    space = gym.spaces.Sequence(gym.spaces.Discrete(3))
    spec = EnvSpec(name="sequence", make=lambda: Numbers(space))
    with pytest.raises(UsageError, match=r"sequence observes Sequence.*no fixed size"):
        make_vector_env(spec, resolve(spec), 1)


PACKAGE = """
import gymnasium as gym

gym.register(
    id="OwnPole-v0",
    entry_point="gymnasium.envs.classic_control:CartPoleEnv",
    max_episode_steps=3,
    reward_threshold=2.5,
)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the module of a package that registers OwnPole-v0 when it is imported."""
    folder = tmp_path / "rlagents_test_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "games.py").write_text(PACKAGE)
    (folder / "broken.py").write_text("raise RuntimeError('no licence')\n")
    (folder / "needy.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "rlagents_test_package.games"
    gym.registry.pop("OwnPole-v0", None)
    for name in list(sys.modules):
        if name.startswith("rlagents_test_package"):
            del sys.modules[name]


def test_a_package_with_its_module(make: Callable[..., VectorEnv], package: str) -> None:
    env_id = f"{package}:OwnPole-v0"
    assert "OwnPole-v0" not in gym.registry
    spec = find_env(env_id)
    assert spec.name == env_id
    assert spec.reward_threshold == 2.5
    env = make(env_id)
    assert resolve(spec).id == env_id
    begin(env)
    assert [bool(step(env, action).truncated[0]) for action in (0, 1, 0)] == [False, False, True]


def test_a_package_lacks_the_id(package: str) -> None:
    with pytest.raises(UsageError, match=r"(?i)did you mean.*OwnPole"):
        find_env(f"{package}:OwnPol-v0")


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("a_module_that_is_not_there:Id-v0", "a_module_that_is_not_there"),
        ("rlagents_test_package.nothing:Id-v0", "rlagents_test_package.nothing"),
        ("rlagents_test_package.needy:Id-v0", "a_module_that_is_not_there"),
        ("rlagents_test_package.broken:Id-v0", "no licence"),
    ],
)
@pytest.mark.usefixtures("package")
def test_a_package_that_cannot_be_imported(env_id: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_env(env_id)


@pytest.mark.parametrize(
    ("env_id", "suggestion"),
    [
        ("pogn", "pong"),
        ("cart-pole", "cartpole"),
        ("Acrobot-v", "Acrobot-v1"),
        ("CartPole", "CartPole-v1"),
        ("atari/brekout", "breakout"),
        ("ALE/Pongg-v5", "Pong"),
    ],
)
def test_an_unknown_id_names_the_nearest(env_id: str, suggestion: str) -> None:
    with pytest.raises(UsageError, match=rf"(?i)did you mean:? ['`]{suggestion}['`]") as caught:
        find_env(env_id)
    assert env_id.removeprefix("atari/") in str(caught.value)


def test_an_id_that_resembles_nothing_says_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"list envs.*path/to/file\.py:make_env"):
        find_env("qqqqqqqq")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abXY_019:/.- v", max_size=12))
@example(":Own-v0")
@example(".own:Own-v0")
@example("own:games:Own-v0")
@example("own.py:")
@example(".py:own")
def test_any_text_is_an_environment_or_a_usage_error(env_id: str) -> None:
    with contextlib.suppress(UsageError):
        assert isinstance(find_env(env_id), EnvSpec)


def test_a_gymnasium_environment_whose_package_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)  # as on a machine without it
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.phys2d")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match="jax"):
        resolve(find_env("phys2d/CartPole-v1"))


# Files

FILE = """
import gymnasium as gym
import numpy as np

class Own(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Discrete(2)
    def __init__(self, value=MARK, render_mode=None):
        self.value = value
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(3, self.value, np.float32), {}
    def step(self, action):
        return np.full(3, self.value, np.float32), 0.0, False, False, {}

def make_env(**kwargs):
    return Own(**kwargs)

def make_number(**kwargs):
    return 5

number = 5
"""


def write_file(folder: Path, mark: float = 0.5, name: str = "own.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(FILE.replace("MARK", str(mark)))
    return path


@pytest.mark.parametrize("name", ["make_env", "Own"])
def test_a_function_or_class_of_a_file(
    make: Callable[..., VectorEnv], tmp_path: Path, name: str
) -> None:
    env_id = f"{write_file(tmp_path)}:{name}"
    assert begin(make(env_id, 2)).tolist() == [[0.5] * 3] * 2
    assert begin(make(env_id, kwargs={"value": 0.75})).tolist() == [[0.75] * 3]


def test_a_relative_path_is_made_absolute(
    make: Callable[..., VectorEnv], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file(tmp_path / "here")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(path.parent)
    config = resolve(find_env("own.py:make_env"))
    assert config.id == f"{path.resolve()}:make_env"
    monkeypatch.chdir(elsewhere)
    assert begin(make(config.id)).shape == (1, 3)
    assert resolve(find_env(f"..{os.sep}here{os.sep}own.py:Own")).id == f"{path.resolve()}:Own"


def test_files_of_one_name_in_two_folders(make: Callable[..., VectorEnv], tmp_path: Path) -> None:
    first = find_env(f"{write_file(tmp_path / 'a', 0.25)}:make_env")
    second = find_env(f"{write_file(tmp_path / 'b', 0.75)}:make_env")
    assert begin(make(second))[0, 0] == 0.75
    assert begin(make(first))[0, 0] == 0.25


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no file .*own\.py"):
        find_env(f"{tmp_path}/own.py:make_env")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import a_module_that_is_not_there\n", "a_module_that_is_not_there"),
        ("def make_env(:\n", "SyntaxError"),
        ("raise RuntimeError('no licence')\n", "no licence"),
    ],
)
def test_a_file_that_fails_on_import(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        find_env(f"{path}:make_env")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["make_emv", "number", ""])
def test_a_file_that_lacks_the_name(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path)
    with pytest.raises(UsageError, match="no function or class") as caught:
        find_env(f"{path}:{name}")
    assert str(path) in str(caught.value)
    assert ("did you mean 'make_env'" in str(caught.value)) == (name == "make_emv")


def test_a_make_that_returns_something_else(tmp_path: Path) -> None:
    spec = find_env(f"{write_file(tmp_path)}:make_number")
    with pytest.raises(UsageError, match=r"must return a gymnasium\.Env, not int"):
        resolve(spec)


def test_an_argument_that_make_does_not_take(tmp_path: Path) -> None:
    spec = find_env(f"{write_file(tmp_path)}:make_env")
    with pytest.raises(UsageError, match="no_such_argument"):
        resolve(spec, kwargs={"no_such_argument": 1})


@pytest.mark.parametrize("error", [ImportError, ValueError, FileNotFoundError, KeyError])
def test_a_make_that_fails(error: type[Exception]) -> None:
    def fail(**kwargs: Any) -> gym.Env[Any, Any]:
        raise error("no licence")

    with pytest.raises(UsageError, match="no licence"):
        resolve(EnvSpec(name="failing", make=fail))


def test_an_environment_without_spaces() -> None:
    class Bare(gym.Env[Any, int]):
        pass

    with pytest.raises(UsageError, match="observation_space"):
        resolve(EnvSpec(name="bare", make=Bare))


# Pictures and vectors


def test_unregistered_pictures_are_shrunk_greyed_and_stacked_but_not_skipped(
    make: Callable[..., VectorEnv],
) -> None:
    spec = EnvSpec(name="pictures", make=Pictures)
    config = resolve(spec)
    assert (config.frame_skip, config.frame_size, config.frame_stack) == (1, 84, 4)
    env = make(spec, 2)
    assert env.observation_space == FrameStack(4, 84, 84)
    observation = begin(env)
    assert observation.shape == (2, 4, 84, 84)
    assert observation.dtype == np.uint8
    # A flat picture stays flat, and a grey's luminance is itself.
    assert (observation[:, :3] == 0).all()
    assert (observation[:, 3] == 10).all()
    for frame in range(1, 6):
        got = step(env)
        assert got.reward.tolist() == [1.0, 1.0]
        for back in range(4):
            expected = 10 + frame - back if frame - back >= 0 else 0
            assert (got.observation[:, 3 - back] == expected).all()


@pytest.mark.parametrize("shape", [(48, 32, 3), (48, 32, 1), (48, 32), (84, 84, 3)])
def test_pictures_of_every_layout(make: Callable[..., VectorEnv], shape: tuple[int, ...]) -> None:
    env = make(EnvSpec(name="pictures", make=Pictures), kwargs={"shape": shape}, frame_size=20)
    observation = begin(env)
    assert observation.shape == (1, 4, 20, 20)
    assert (observation[0, 3] == 10).all()


def test_the_luminance_is_what_people_see(make: Callable[..., VectorEnv]) -> None:
    class Red(Pictures):
        def _observe(self) -> Any:
            return np.full((48, 32, 3), (200, 0, 0), dtype=np.uint8)

    observation = begin(make(EnvSpec(name="red", make=Red)))
    assert (observation[0, 3] == round(0.299 * 200)).all()


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Box(-1e9, 1e9, (2,), np.float32),
        gym.spaces.Box(0, 255, (2,), np.uint8),
    ],
)
def test_vectors_are_left_alone(make: Callable[..., VectorEnv], space: gym.spaces.Box) -> None:
    spec = EnvSpec(name="numbers", make=lambda: Numbers(space))
    config = resolve(spec)
    assert (config.frame_skip, config.frame_size, config.frame_stack) == (1, None, None)
    env = make(spec)
    assert np.array_equal(env.observation_space.high, space.high)
    begin(env)
    observation = step(env, 2).observation
    assert observation.dtype == np.float32
    assert np.array_equal(observation[0], np.array([1.25, 2]).astype(space.dtype))


def test_float64_becomes_float32(make: Callable[..., VectorEnv]) -> None:
    env = make(EnvSpec(name="numbers", make=Numbers))
    assert env.observation_space.dtype == np.float32
    assert begin(env).dtype == np.float32
    got = step(env, 2)
    assert got.observation.dtype == np.float32
    assert got.observation.tolist() == [[1.25, 2.0]]
    assert got.reward.dtype == np.float32


# Frame skip


@pytest.mark.parametrize("frame_skip", [1, 2, 5])
def test_frame_skip_sums_rewards_on_any_environment(
    make: Callable[..., VectorEnv], frame_skip: int
) -> None:
    env = make(EnvSpec(name="numbers", make=Numbers), frame_skip=frame_skip)
    begin(env)
    for agent_step in range(1, 4):
        got = step(env)
        assert got.reward.tolist() == [1.5 * frame_skip]
        assert got.observation[0, 0] == agent_step * frame_skip + 0.25


def test_frame_skip_of_pictures(make: Callable[..., VectorEnv]) -> None:
    env = make(EnvSpec(name="pictures", make=Pictures), frame_skip=3)
    begin(env)
    got = step(env)
    assert got.reward[0] == 3
    assert [int(frame.max()) for frame in got.observation[0]] == [0, 0, 10, 13]


def test_a_sprite_drawn_every_other_frame_does_not_vanish(
    make: Callable[..., VectorEnv],
) -> None:
    class Flicker(Pictures):
        def _observe(self) -> Any:
            picture = np.full((48, 32, 3), 20, dtype=np.uint8)
            half = slice(24) if self._frame % 2 else slice(24, 48)
            picture[half] = 90
            return picture

    env = make(EnvSpec(name="flicker", make=Flicker), frame_skip=4)
    begin(env)
    assert (step(env).observation[0, -1] == 90).all()


def test_frame_skip_ends_with_the_episode(make: Callable[..., VectorEnv]) -> None:
    env = make(EnvSpec(name="pictures", make=Pictures), frame_skip=4, kwargs={"length": 6})
    begin(env)
    assert step(env).reward[0] == 4
    last = step(env)
    assert last.reward[0] == 2
    assert last.terminated[0]


def with_attribute(name: str, value: Any) -> Callable[..., gym.Env[Any, Any]]:
    def make_env() -> gym.Env[Any, Any]:
        env = Pictures()
        setattr(env, name, value)
        return gym.wrappers.TimeLimit(env, 100)

    return make_env


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frameskip", 4),
        ("frame_skip", 4),
        ("_frame_skip", 2),
        ("_frameskip", 4),
        ("frameskip", (2, 5)),
    ],
)
def test_skipping_twice_is_refused(name: str, value: Any) -> None:
    spec = EnvSpec(name="skipping", make=with_attribute(name, value))
    with pytest.raises(UsageError, match=r"frame_skip: skipping skips frames itself.*twice"):
        resolve(spec, frame_skip=4)
    assert resolve(spec, frame_skip=1).frame_skip == 1
    assert resolve(spec).frame_skip == 1


def test_no_skip_inside_is_no_reason_to_refuse() -> None:
    assert resolve(EnvSpec(name="one", make=with_attribute("frame_skip", 1)), frame_skip=4)


def test_skipping_twice_is_refused_for_an_attribute_of_the_class() -> None:
    class Skipping(Pictures):
        frame_skip = 4

    with pytest.raises(UsageError, match="twice"):
        resolve(EnvSpec(name="skipping", make=Skipping), frame_skip=4)


def test_skipping_twice_is_refused_when_the_skip_is_the_specs_default() -> None:
    spec = EnvSpec(
        name="skipping",
        make=with_attribute("frameskip", 4),
        preprocessing=Preprocessing(frame_skip=4),
    )
    with pytest.raises(UsageError, match="twice"):
        resolve(spec)


@pytest.mark.parametrize("env_id", ["pong", "ALE/Pong-v5"])
def test_skipping_twice_is_refused_for_atari(env_id: str) -> None:
    spec = find_env(env_id)
    with pytest.raises(UsageError, match=r"frameskip.*twice.*frame_skip"):
        make_vector_env(spec, resolve(spec, kwargs={"frameskip": 4}), 1)


# Options


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sticky_probability", 0.25),
        ("noop_max", 30),
        ("life_loss_terminates", True),
        ("frame_size", 42),
        ("frame_stack", 2),
        ("crop", [0, 8]),
        ("action_set", "minimal"),
    ],
)
@pytest.mark.parametrize("env_id", ["cartpole", "Acrobot-v1"])
def test_options_that_mean_nothing_are_refused(env_id: str, key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^\[env\] .*{key}.*{env_id}"):
        resolve(find_env(env_id), **{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("sticky_probability", 0.25), ("noop_max", 3), ("life_loss_terminates", True)],
)
def test_atari_options_are_refused_for_other_pictures(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=key):
        resolve(EnvSpec(name="pictures", make=Pictures), **{key: value})


@pytest.mark.parametrize("argument", ["nonsense", "num_envs"])
def test_arguments_that_ale_does_not_take(argument: str) -> None:
    spec = find_env("pong")
    with pytest.raises(UsageError, match=rf"^\[env\] kwargs.*{argument}"):
        make_vector_env(spec, resolve(spec, kwargs={argument: 3}), 1)


@pytest.mark.parametrize("kwargs", [{"stack_num": 2}, {"img_height": 42}, {"grayscale": False}])
def test_observations_fit_their_space_whatever_the_arguments(
    make: Callable[..., VectorEnv], kwargs: dict[str, Any]
) -> None:
    try:
        env = make("pong", kwargs=kwargs)
    except UsageError:
        return  # refused, since an [env] key says it already
    assert begin(env).shape == (1, *env.observation_space.shape)


def observable(env_id: str | EnvSpec, options: dict[str, Any]) -> tuple[Any, ...]:
    """Return what anyone can see of an environment of these options: spaces and an episode."""
    spec = find_env(env_id) if isinstance(env_id, str) else env_id
    config = resolve(spec, **options)
    env = make_vector_env(spec, config, config.num_envs)
    seen: list[Any] = [env.num_envs, env.observation_space.shape, int(env.action_space.n)]  # type: ignore[attr-defined]
    seen.append(begin(env, seed=4).tobytes())
    actions = np.random.default_rng(0).integers(seen[2], size=30)
    for action in actions:
        got = step(env, int(action))
        over = bool((got.terminated | got.truncated).any())
        seen.append((got.observation.tobytes(), got.reward.tobytes(), over))
        if over:
            break
    env.close()
    return tuple(seen)


CHANGES: dict[str, tuple[str, Any]] = {
    "num_envs": ("pong", 2),
    "frame_skip": ("pong", 3),
    "sticky_probability": ("pong", 0.9),
    "noop_max": ("pong", 0),
    "action_set": ("pong", "full"),
    "frame_size": ("pong", 42),
    "frame_stack": ("pong", 2),
    "crop": ("pong", [105, 0]),
    "max_episode_frames": ("pong", 40),
    "kwargs": ("atari/breakout", {"use_fire_reset": False}),
}


@functools.cache
def plain(env_id: str) -> tuple[Any, ...]:
    return observable(env_id, {})


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_changes_something(key: str) -> None:
    env_id, value = CHANGES[key]
    assert plain(env_id) == observable(env_id, {})  # else any difference would do
    assert observable(env_id, {key: value}) != plain(env_id)


def test_every_key_has_such_a_test() -> None:
    # Which environment it is, shows everywhere; what a lost life means to the agent is the
    # runner's business and is tested there. Processes must change nothing: see test_workers.py.
    # Only Mario has rewards: tests/test_mario_registry.py.
    elsewhere = {
        *("id", "life_loss_terminates", "reward"),
        *("num_workers", "step_limit_s", "max_restarts"),
    }
    assert set(CHANGES) | elsewhere == set(EnvConfig.model_fields)


@pytest.mark.parametrize(
    ("key", "value"),
    [("frame_skip", 2), ("max_episode_frames", 10), ("kwargs", {"length": 10}), ("num_envs", 2)],
)
def test_keys_change_something_outside_atari_too(key: str, value: Any) -> None:
    spec = EnvSpec(name="pictures", make=Pictures)
    assert observable(spec, {}) == observable(spec, {})
    assert observable(spec, {key: value}) != observable(spec, {})


def test_a_limit_in_frames_truncates(make: Callable[..., VectorEnv]) -> None:
    env = make(EnvSpec(name="pictures", make=Pictures), frame_skip=2, max_episode_frames=6)
    begin(env)
    for expected in (False, False, True):
        got = step(env)
        assert bool(got.truncated[0]) is expected
        assert not got.terminated[0]


# Action sets


@pytest.mark.parametrize(
    ("action_set", "number"),
    [(None, 6), ("minimal", 6), ("up-down", 2), ("stay-up-down", 3), ("full", 18)],
)
def test_actions_of_pong(
    make: Callable[..., VectorEnv], action_set: str | None, number: int
) -> None:
    options = {} if action_set is None else {"action_set": action_set}
    env = make("pong", **options)
    assert env.action_space == gym.spaces.Discrete(number)
    spec = find_env("pong")
    player = make_player(spec, resolve(spec, **options))
    assert player.action_space == env.action_space
    player.close()


def test_the_actions_of_pong_are_what_their_sets_say() -> None:
    meanings = AtariEnv("pong").get_action_meanings()
    sets = {
        name: [meanings[action] for action in actions]
        for name, actions in find_env("pong").action_sets.items()
    }
    assert sets["up-down"] == ["RIGHT", "LEFT"]
    assert sets["stay-up-down"] == ["NOOP", "RIGHT", "LEFT"]


def test_a_choice_of_actions_plays_the_same_game(make: Callable[..., VectorEnv]) -> None:
    actions = np.random.default_rng(1).integers(3, size=40)
    minimal, chosen = make("pong", noop_max=0), make("pong", noop_max=0, action_set="stay-up-down")
    assert np.array_equal(begin(minimal), begin(chosen))
    for action in actions:
        one = step(minimal, (0, UP, DOWN)[action])
        other = step(chosen, int(action))
        assert np.array_equal(one.observation, other.observation)
        assert one.reward == other.reward


@pytest.mark.parametrize(
    ("action_set", "up", "down"), [("up-down", 0, 1), ("stay-up-down", 1, 2), ("full", 3, 4)]
)
def test_up_is_up(make: Callable[..., VectorEnv], action_set: str, up: int, down: int) -> None:
    env = make("pong", action_set=action_set)
    height = {}
    for action in (up, down):
        begin(env)
        for _ in range(8):
            picture = step(env, action).observation[0, -1]
        field = picture[14:77, 72:76].astype(int)  # our paddle's columns, without the borders
        moved = abs(field - np.median(field)) > 20
        height[action] = np.flatnonzero(moved.any(axis=1)).mean()
    assert height[up] < height[down] - 20


def test_an_unknown_action_set_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"action_set.*'up-dwn'; did you mean 'up-down'") as caught:
        resolve(find_env("pong"), action_set="up-dwn")
    for name in ("full", "minimal", "stay-up-down", "up-down"):
        assert name in str(caught.value)
    with pytest.raises(UsageError, match=r"It has: full, minimal\."):
        resolve(find_env("atari/breakout"), action_set="up-down")
    with pytest.raises(UsageError, match=r"It has: default\."):
        resolve(find_env("cartpole"), action_set="up-down")


def test_action_sets_of_ones_own(make: Callable[..., VectorEnv]) -> None:
    spec = EnvSpec(
        name="chosen",
        make=functools.partial(Numbers, actions=9),
        action_sets={"odd": (1, 3, 5), "last": (8,)},
    )
    assert make(spec).action_space == gym.spaces.Discrete(9)
    env = make(spec, action_set="odd")
    assert env.action_space == gym.spaces.Discrete(3)
    begin(env)
    assert [step(env, action).observation[0, 1] for action in range(3)] == [1, 3, 5]
    with pytest.raises(UsageError, match=r"It has: last, odd\."):
        resolve(spec, action_set="even")


def test_an_action_set_may_be_the_default(make: Callable[..., VectorEnv]) -> None:
    spec = EnvSpec(name="chosen", make=Numbers, action_sets={"odd": (1,)}, action_set="odd")
    env = make(spec)
    begin(env)
    assert step(env, 0).observation[0, 1] == 1


# Registering


@pytest.mark.usefixtures("own_names")
def test_register_env(make: Callable[..., VectorEnv]) -> None:
    spec = EnvSpec(name="my-pictures", make=Pictures, preprocessing=Preprocessing(frame_skip=2))
    rlagents.register_env(rlagents.EnvSpec(name="another", make=Numbers))
    register_env(spec)
    assert find_env("my-pictures") is spec
    assert {"my-pictures", "another"} <= {known.name for known in list_envs()}
    env = make("my-pictures")
    begin(env)
    assert step(env).reward[0] == 2
    with pytest.raises(UsageError, match="did you mean 'my-pictures'"):
        find_env("my-picture")


@pytest.mark.usefixtures("own_names")
def test_a_name_that_is_taken() -> None:
    spec = EnvSpec(name="mine", make=Pictures)
    register_env(spec)
    register_env(spec)  # the same again, as when a notebook's cell is run twice
    with pytest.raises(UsageError, match=r"'mine' is taken"):
        register_env(EnvSpec(name="mine", make=Numbers))
    for name in ("pong", "cartpole", "atari/breakout"):
        with pytest.raises(UsageError, match=rf"'{name}' is taken"):
            register_env(EnvSpec(name=name, make=Pictures))
    assert find_env("mine") is spec


ENTRY_POINTS = """
import gymnasium as gym
from rlagents.envs import EnvSpec

def spec():
    return EnvSpec(
        name="their-env", make=lambda render_mode=None: gym.make("CartPole-v1"), description="hi"
    )

def broken():
    raise RuntimeError("no licence")

def nothing():
    return 5
"""


@pytest.fixture
def entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Return entry points by name, as other packages might announce them; a test fills it."""
    (tmp_path / "rlagents_test_plugin.py").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    announced: dict[str, str] = {}

    def fake(*, group: str) -> Any:
        assert group == "rlagents.envs"
        return importlib.metadata.EntryPoints(
            importlib.metadata.EntryPoint(name, f"rlagents_test_plugin:{function}", group)
            for name, function in announced.items()
        )

    monkeypatch.setattr(importlib.metadata, "entry_points", fake)
    yield announced
    sys.modules.pop("rlagents_test_plugin", None)


def test_an_entry_point(make: Callable[..., VectorEnv], entry_points: dict[str, str]) -> None:
    entry_points["their-env"] = "spec"
    assert begin(make("their-env")).shape == (1, 4)
    assert "their-env" in {spec.name for spec in list_envs()}
    with pytest.raises(UsageError, match="did you mean 'their-env'"):
        find_env("their-en")


def test_entry_points_are_loaded_only_when_asked_for(entry_points: dict[str, str]) -> None:
    entry_points["their-env"] = "broken"
    assert find_env("cartpole").name == "cartpole"
    with pytest.raises(UsageError):
        find_env("their-en")
    assert "rlagents_test_plugin" not in sys.modules


@pytest.mark.parametrize(
    ("function", "message"),
    [("broken", "no licence"), ("nothing", "EnvSpec, not int"), ("missing", "missing")],
)
def test_an_entry_point_that_fails(
    entry_points: dict[str, str], function: str, message: str
) -> None:
    entry_points["their-env"] = function
    with pytest.raises(UsageError, match=message) as caught:
        find_env("their-env")
    assert "their-env" in str(caught.value)


def test_a_broken_package_does_not_hide_what_the_others_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    """As pip leaves a package: the module, and its entry points beside it."""
    (tmp_path / "rlagents_test_plugin.py").write_text(ENTRY_POINTS)
    about = tmp_path / "their_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[rlagents.envs]\n"
        "their-broken-env = rlagents_test_plugin:broken\n"
        "their-env = rlagents_test_plugin:spec\n"
        "their-nothing = rlagents_test_plugin:nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    listed = cli("list", "envs", "--json")
    assert listed.code == 0
    names = {row["name"] for row in json.loads(listed.out)}
    assert {"their-env", "pong", "cartpole"} <= names
    assert not {"their-broken-env", "their-nothing"} & names
    broken, nothing = sorted(listed.err.splitlines())
    for line, name, why in (
        (broken, "their-broken-env", "no licence"),
        (nothing, "their-nothing", "EnvSpec, not int"),
    ):
        assert line.startswith("warning: ")
        assert all(word in line for word in (name, "their-package", why))
    refused = cli("train", "cartpole-dqn", "--env.id", "their-broken-env", "--runs-dir", tmp_path)
    assert refused.code == 2
    assert all(word in refused.err for word in ("their-package", "no licence"))
    sys.modules.pop("rlagents_test_plugin", None)


def test_what_there_is() -> None:
    specs = list_envs()
    names = [spec.name for spec in specs]
    assert names[:3] == ["cartpole", "mario", "mario-1-1"]
    assert "pong" in names
    assert len(set(names)) == len(names)
    assert {f"atari/{game}" for game in games()} <= set(names)
    assert all(spec.description for spec in specs)
    assert all("\n" not in spec.description for spec in specs)
