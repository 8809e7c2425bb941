"""How episodes come out: told by the environment, and shown wherever episodes are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from corridor import GOAL, PIT, Corridor
from test_runner import ScriptedEnv, make_config, make_runner, of_kind, steps_of

import rlagents
from rlagents.agents.base import Policy
from rlagents.envs import (
    EnvConfig,
    EnvSpec,
    VectorStep,
    find_env,
    make_eval_env,
    make_player,
    make_vector_env,
    resolve_env_config,
)
from rlagents.envs.outcomes import OutcomeReader
from rlagents.envs.vector import GroupedVectorEnv
from rlagents.errors import UsageError
from rlagents.evaluate import Evaluation, PlayedEpisode, play_episodes
from rlagents.events import CheckpointDue, Evaluated, Logged
from rlagents.types import Outcome
from rlagents.watch.videos import describe_video

CORRIDOR = f"{Path(__file__).parent / 'corridor.py'}:Corridor"
WON = Outcome({"x": GOAL, "is_success": True}, True)
LOST = Outcome({"x": PIT, "is_success": False}, False)


def spec(**changes: Any) -> EnvSpec:
    return EnvSpec(name="corridor", make=Corridor, **changes)


def make_env(spec: EnvSpec, num_envs: int = 1, **options: Any) -> Any:
    config = resolve_env_config(EnvConfig(id=spec.name, num_envs=num_envs, **options), spec)
    return make_vector_env(spec, config, num_envs)


def walk(env: Any, *rows: Sequence[int]) -> list[VectorStep]:
    """Begin all episodes, and take the steps of `rows`."""
    env.reset(np.ones(env.num_envs, dtype=np.bool_), list(range(env.num_envs)))
    steps = []
    for row in rows:
        env.send(np.array(row))
        steps.append(env.recv())
    return steps


# --- reading the info ---


@pytest.mark.parametrize(
    ("names", "success", "info", "expected"),
    [
        ((), None, {}, None),
        ((), None, None, None),  # Gymnasium asks for a dict; what reads none of it asks for nothing
        ((), None, {"x": 3}, None),
        ((), None, {"is_success": True, "x": 3}, Outcome({"is_success": True}, True)),
        ((), None, {"is_success": np.float32(0)}, Outcome({"is_success": False}, False)),
        ((), None, {"is_success": np.array([True])}, Outcome({"is_success": True}, True)),
        ((), None, {"is_success": "yes"}, None),  # something else of that name
        ((), None, {"is_success": 0.5}, None),
        ((), None, {"is_success": np.zeros(2)}, None),
        (("x",), None, {"x": np.int32(3), "y": 1}, Outcome({"x": 3}, None)),
        (("x",), None, {"x": 3, "is_success": 1}, Outcome({"x": 3, "is_success": True}, True)),
        (("x",), "flag", {"x": 3, "flag": True}, Outcome({"x": 3, "flag": True}, True)),
        (("flag", "x"), "flag", {"x": "a", "flag": 0}, Outcome({"flag": 0, "x": "a"}, False)),
        ((), "flag", {"flag": False, "is_success": True}, Outcome({"flag": False}, False)),
    ],
)
def test_an_outcome_is_read(names: Any, success: Any, info: Any, expected: Any) -> None:
    outcome = OutcomeReader(names, success).read(info)
    assert outcome == expected
    if outcome is not None:
        assert {type(value) for value in outcome.values.values()} <= {bool, int, float, str}
        json.dumps(outcome.values)


@pytest.mark.parametrize(
    ("names", "success", "info", "words"),
    [
        (("x",), None, {"y": 1}, "no 'x'"),
        ((), "flag", {}, "no 'flag'"),
        (("x",), None, {"x": [1]}, "got list"),
        (("x",), None, {"x": None}, "got NoneType"),
        (("x",), None, {"x": np.zeros(3)}, "got ndarray"),
        ((), "flag", {"flag": 2}, "true or false, got 2"),
        ((), "flag", {"flag": "yes"}, "true or false, got 'yes'"),
    ],
)
def test_a_spec_that_names_what_is_not_there(
    names: Any, success: Any, info: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        OutcomeReader(names, success).read(info)


# --- environments ---


def test_outcomes_come_with_the_step_that_ends_an_episode() -> None:
    env = make_env(spec(outcome=("x",)), 3, kwargs={"patience": 5})
    steps = walk(env, *[[1, 0, 1], [1, 0, 0]] * 2, [1, 0, 1])
    told = {time: dict(step.outcomes) for time, step in enumerate(steps) if step.outcomes}
    cut = Outcome({"x": 1, "is_success": False}, False)
    assert told == {2: {1: LOST}, 3: {0: WON}, 4: {2: cut}}
    assert [step.truncated.tolist() for step in steps][4] == [False, False, True]


def test_skipped_frames_end_with_the_outcome_of_the_last() -> None:
    env = make_env(spec(outcome=("x",)), frame_skip=3)
    assert [dict(step.outcomes) for step in walk(env, [1], [1])] == [{}, {0: WON}]


def test_groups_number_outcomes_through() -> None:
    groups = [make_env(spec(outcome=("x",)), number) for number in (1, 2, 1)]
    *_, last = walk(GroupedVectorEnv(groups), *[[1, 1, 0, 0]] * 3)
    assert dict(last.outcomes) == {2: LOST, 3: LOST}
    assert groups[1]._waiting.tolist() == [False, True]


def test_an_environment_that_tells_nothing_has_no_outcomes() -> None:
    env = make_env(spec(), kwargs={"silent": True})
    assert all(not step.outcomes for step in walk(env, *[[1]] * 4))
    assert all(not step.outcomes for step in walk(make_env(find_env("cartpole")), *[[1]] * 30))


def test_a_player_tells_at_the_end_only() -> None:
    own = spec(outcome=("x",))
    player = make_player(own, resolve_env_config(EnvConfig(id="corridor"), own))
    steps = [player.reset(1), *(player.step(1) for _ in range(4))]
    assert [step.outcome for step in steps] == [None, None, None, None, WON]
    player.close()


@pytest.mark.parametrize(
    ("env_id", "tells"), [("cartpole", False), ("pong", False), ("LunarLander-v3", None)]
)
def test_which_environments_are_known_to_tell(env_id: str, tells: bool | None) -> None:
    assert find_env(env_id).tells_success is tells
    assert spec(success="flag").tells_success is True


# --- evaluations ---


class Rightward:
    """Walks right."""

    kind = "action values"

    def values(self, observations: Any) -> Any:
        right = np.ones(len(observations), dtype=np.float32)
        return np.stack([0 * right, right], axis=1)


def evaluate(*outcomes: Outcome | None) -> Evaluation:
    played = tuple(
        PlayedEpisode(
            seed, np.zeros(3, np.int64), np.zeros((3, 2), np.float32), 1.0, "terminated", outcome
        )
        for seed, outcome in enumerate(outcomes)
    )
    return Evaluation("runs/a", "step-10", 10, "corridor", 1, 0.0, played)


@pytest.mark.parametrize("num_envs", [1, 2, 5, 9])
def test_every_played_episode_has_its_own_outcome(num_envs: int) -> None:
    own = spec(outcome=("x",))
    config = resolve_env_config(EnvConfig(id="corridor", kwargs={"wind": 0.45}), own)
    env = make_eval_env(own, config, num_envs)
    seeds = [3, 1, 4, 15, 9, 2, 6]
    played = play_episodes(cast(Policy, Rightward()), env, seeds, epsilon=0.5, sample=False)
    for episode in played:
        x = 0
        generator = np.random.default_rng(episode.seed)
        for action in episode.actions:
            x += (1 if action == 1 else -1) - (generator.random() < 0.45)
        assert episode.outcome == Outcome({"x": x, "is_success": x >= GOAL}, x >= GOAL)
    assert len({episode.success for episode in played}) == 2  # else little was seen


def test_the_success_rate_and_what_json_says() -> None:
    report = evaluate(WON, LOST, WON, WON).as_dict()
    assert report["success_rate"] == 0.75
    assert report["outcomes"] == [dict(one.values) for one in (WON, LOST, WON, WON)]
    about = ["lengths", "distinct_episodes", "success_rate", "outcomes"]  # all are the same episode
    assert list(report)[-4:] == about
    assert json.loads(json.dumps(report)) == report


def test_an_episode_that_tells_nothing_counts_as_not_completed_beside_one_that_does() -> None:
    evaluation = evaluate(WON, None, None)
    assert (evaluation.successes, evaluation.success_rate) == (1, pytest.approx(1 / 3))
    assert evaluation.as_dict()["outcomes"] == [dict(WON.values), None, None]


def test_outcomes_without_success() -> None:
    evaluation = evaluate(Outcome({"x": 3}, None), Outcome({"x": 5}, None))
    assert evaluation.success_rate is None
    report = evaluation.as_dict()
    assert report["outcomes"] == [{"x": 3}, {"x": 5}]
    assert "success_rate" not in report


# --- training: which checkpoint is the best, and when it ends ---


class Telling(ScriptedEnv):
    """Episodes of one step, of whose ends `told` says whether they were completed."""

    def __init__(self, told: Iterator[bool | None], **options: Any) -> None:
        super().__init__([[1]], **options)
        self._told = told

    def recv(self) -> VectorStep:
        step = super().recv()
        success = next(self._told)
        if success is None:
            return step
        return step._replace(outcomes={0: Outcome({"flag": success}, success)})


def make_telling_runner(
    config: Any, evaluations: Sequence[tuple[Sequence[bool | None], float]], training: str = ""
) -> Any:
    """A runner whose evaluations have these successes and this return in every episode.

    `training` tells of the training episodes' ends: + completed, - not, anything else nothing.
    """
    ends = [(success, value) for told, value in evaluations for success in told]
    told, rewards = iter(success for success, _ in ends), iter(value for _, value in ends)
    marks = iter({"+": True, "-": False}.get(mark) for mark in training)
    runner = make_runner(config, Telling(iter(lambda: next(marks, None), "never")))
    runner._make_eval_env = lambda number: Telling(told, reward=lambda _: next(rewards))
    return runner


def test_the_best_has_the_highest_success_rate_and_of_those_the_highest_return() -> None:
    config = make_config(total_steps=70, evaluation__period_steps=10, evaluation__episodes=2)
    won, half, lost, silent = [True, True], [True, False], [False, False], [None, None]
    evaluations = [
        (silent, 5.0), (lost, 4.0), (lost, 5.0), (half, 1.0), (half, 9.0), (won, 2.0), (won, 1.0),
    ]  # fmt: skip
    events = list(make_telling_runner(config, evaluations).run())
    assert [event.is_best for event in of_kind(events, Evaluated)] == [
        *(True, False, True, True, True, True, False),
    ]
    assert [event.clock.step for event in of_kind(events, CheckpointDue) if event.is_best] == [
        *(10, 30, 40, 50, 60),
    ]


@pytest.mark.parametrize(
    ("keys", "last_step"),
    [
        ({}, 50),
        ({"stop_success": 0.5}, 20),
        ({"stop_success": 0.6}, 40),
        ({"stop_success": 1}, 40),
        ({"stop_return": 2.0}, 10),
        ({"stop_success": 0.5, "stop_return": 2.0}, 30),  # both, in one evaluation
        ({"stop_success": 1.0, "stop_return": 2.0}, 50),
    ],
)
def test_what_ends_a_run(keys: dict[str, float], last_step: int) -> None:
    config = make_config(
        total_steps=50,
        evaluation__period_steps=10,
        evaluation__episodes=2,
        **{f"evaluation__{key}": value for key, value in keys.items()},
    )
    evaluations = [
        ([False, False], 3.0), ([True, False], 1.0), ([True, False], 2.0), ([True, True], 1.0),
        ([True, True], 1.0),
    ]  # fmt: skip
    events = list(make_telling_runner(config, evaluations).run())
    evaluated = of_kind(events, Evaluated)
    assert steps_of(events, Evaluated) == list(range(10, last_step + 1, 10))
    assert [event.is_enough for event in evaluated] == [
        *[False] * (len(evaluated) - 1), last_step < 50,
    ]  # fmt: skip
    assert evaluated[-1].warning is None


def test_more_episodes_are_played_only_while_they_may_end_the_run() -> None:
    config = make_config(
        total_steps=50,
        evaluation__period_steps=10,
        evaluation__episodes=2,
        evaluation__stop_success=0.5,
        evaluation__stop_episodes=5,
    )
    evaluations = [
        ([False, False], 1.0), ([True, False, False, False], 1.0),
        ([True, True, False, False, False], 1.0), ([True, True, False, False, True], 1.0),
    ]  # fmt: skip
    evaluated = of_kind(list(make_telling_runner(config, evaluations).run()), Evaluated)
    assert [[e.success for e in event.episodes] for event in evaluated] == [
        told for told, _ in evaluations
    ]
    assert [event.is_enough for event in evaluated] == [False, False, False, True]


def test_a_goal_that_nobody_tells_of_is_spoken_of_once() -> None:
    config = make_config(
        total_steps=30,
        evaluation__period_steps=10,
        evaluation__episodes=1,
        evaluation__stop_success=0.5,
    )
    events = list(make_telling_runner(config, [([None], 1.0)] * 3).run())
    warnings = [event.warning for event in of_kind(events, Evaluated)]
    assert warnings[0] is not None
    assert "stop_success" in warnings[0]
    assert "is_success" in warnings[0]
    assert warnings[1:] == [None, None]
    assert not any(event.is_enough for event in of_kind(events, Evaluated))


def test_training_episodes_have_a_success_rate_too() -> None:
    metrics = of_kind(
        list(make_telling_runner(make_config(total_steps=8), [], "+-+ + +-").run()), Logged
    )[-1].metrics
    assert metrics["charts/success_rate"] == 4 / 8  # what tells nothing was not completed
    silent = of_kind(list(make_telling_runner(make_config(total_steps=8), []).run()), Logged)[-1]
    assert "charts/success_rate" not in silent.metrics


def test_the_success_rate_is_over_the_last_hundred_episodes() -> None:
    runner = make_telling_runner(make_config(total_steps=130), [], "+" * 60 + "-" * 70)
    metrics = of_kind(list(runner.run()), Logged)[-1].metrics
    assert metrics["charts/success_rate"] == 0.3


def test_a_run_that_is_brought_back_knows_how_episodes_came_out(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"evaluation__period_steps": 10, "evaluation__episodes": 1}
    first = make_telling_runner(make_config(total_steps=10, **keys), [([True], 1.0)], "+-+-+-++++")
    of_kind(list(first.run()), CheckpointDue)[-1].write(tmp_path, True)
    second = make_telling_runner(make_config(total_steps=20, **keys), [([False], 9.0)], "-" * 10)
    assert second.load(tmp_path) is None
    events = list(second.run())
    assert [event.is_best for event in of_kind(events, Evaluated)] == [False]
    assert of_kind(events, Logged)[-1].metrics["charts/success_rate"] == 7 / 20


@pytest.mark.parametrize("goal", [None, 0.5])
def test_a_run_that_reached_its_goal_is_over_when_it_is_brought_back(
    tmp_path: Path, goal: float | None
) -> None:
    keys: dict[str, Any] = {"evaluation__period_steps": 10, "evaluation__episodes": 1}
    goals = {"evaluation__stop_success": 0.5}
    first = make_telling_runner(make_config(total_steps=50, **keys, **goals), [([True], 1.0)])
    of_kind(list(first.run()), CheckpointDue)[-1].write(tmp_path, True)
    config = make_config(total_steps=20, evaluation__stop_success=goal, **keys)
    second = make_telling_runner(config, [([False], 1.0)])
    assert second.load(tmp_path) is None
    list(second.run())
    assert second.step == (10 if goal else 20)


def test_checkpoints_from_before_outcomes_were_told(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"evaluation__period_steps": 10, "evaluation__episodes": 1}
    first = make_telling_runner(make_config(total_steps=10, **keys), [([None], 3.0)])
    of_kind(list(first.run()), CheckpointDue)[-1].write(tmp_path, True)
    path = tmp_path / "runner.json"
    state = json.loads(path.read_text())
    for key in ("recent_successes", "best_success", "enough"):
        del state[key]
    path.write_text(json.dumps(state))
    for goal, step in ((4.0, 20), (3.0, 10)):
        config = make_config(total_steps=20, evaluation__stop_return=goal, **keys)
        second = make_telling_runner(config, [([None], 2.0)])
        assert second.load(tmp_path) is None
        list(second.run())
        assert second.step == step


# --- configs ---


def test_stop_success_is_refused_where_nobody_tells(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"stop_success: cartpole does not tell.*stop_return"):
        rlagents.train("cartpole-dqn", {"evaluation.stop_success": 0.9}, runs_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [0, 1.5, -0.1, "all"])
def test_stop_success_is_a_share(value: object) -> None:
    with pytest.raises(UsageError, match="stop-success: expected number, above 0, at most 1"):
        make_config(evaluation__stop_success=value)


def test_stop_episodes_goes_with_either_goal() -> None:
    for goal in ("stop_return", "stop_success"):
        config = make_config(**{f"evaluation__{goal}": 1.0, "evaluation__stop_episodes": 50})
        assert config.evaluation.stop_episodes == 50
    with pytest.raises(UsageError, match="stop_episodes: needs stop_return or stop_success"):
        make_config(evaluation__stop_episodes=50)


# --- names of videos ---


@pytest.mark.parametrize(
    ("stem", "episodic_return", "completed"),
    [
        ("step-10-episode-0-return-3021", 3021, None),
        ("step-10-episode-0-return-3021-completed", 3021, True),
        ("step-10-episode-0-return-3021-completed-2", 3021, True),
        ("step-10-episode-0-return-3021-2", 3021, None),
        ("step-10-episode-0-return--0.5-completed", -0.5, True),
        ("training-step-10-episode-0-return-1e-05-completed", 1e-05, True),
        ("tiled-step-10-episodes-4-return-1e+06", 1e6, None),
        ("step-10-episode-0-return-completed", None, None),
    ],
)
def test_the_name_of_a_video_says_whether_the_episode_was_completed(
    stem: str, episodic_return: float | None, completed: bool | None
) -> None:
    about = describe_video(f"{stem}.mp4", {}, (), {})
    assert about["return"] == episodic_return
    assert about["completed"] is completed
    assert about["step"] == 10
    told = describe_video(f"{stem}.mp4", {"completed": False}, (), {})
    assert told["completed"] is False  # what the JSON says counts


# --- whole runs ---


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rlagents.Run:
    """A run in the corridor, with the evaluations' first videos."""
    return rlagents.train(
        "cartpole-dqn",
        {
            "env.id": CORRIDOR,
            "env.num_envs": 2,
            "env.kwargs": {"wind": 0.1},
            "agent.learning_starts": 32,
            "agent.epsilon_decay_steps": 300,
            "replay.capacity": 1000,
            "replay.batch_size": 16,
            "network.hidden_sizes": [16],
            "evaluation.period_steps": 200,
            "evaluation.episodes": 5,
            "evaluation.stop_return": None,
            "evaluation.stop_episodes": None,
            "checkpoint.period_steps": 400,
            "recording.period_steps": None,
        },
        total_steps=800,
        runs_dir=tmp_path_factory.mktemp("runs"),
        name="corridor",
        quiet=True,
    )


def test_a_run_tells_how_its_episodes_came_out(run: rlagents.Run) -> None:
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").open()]
    rates = {
        line["step"]: line["eval/success_rate"] for line in lines if "eval/success_rate" in line
    }
    assert list(rates) == [200, 400, 600, 800]
    assert rates[800] == 1.0
    assert any("charts/success_rate" in line for line in lines)
    log = (run.directory / "run.log").read_text()
    assert "completed 5 of 5" in log
    assert "completed" in next(line for line in log.splitlines() if "steps/s" in line)
    names = [path.stem for path in sorted((run.directory / "videos").glob("*.mp4"))]
    last = next(name for name in names if name.startswith("step-800-"))
    assert last.endswith("-completed")
    about = json.loads((run.directory / "videos" / f"{last}.json").read_text())
    assert (about["outcome"], about["completed"]) == ({"is_success": True}, True)


def test_evaluate_prints_how_many_episodes_were_completed(
    run: rlagents.Run, cli: Callable[..., Any]
) -> None:
    shown = cli("evaluate", run.directory, "--episodes", "10")
    assert shown.code == 0
    assert "  completed    10 of 10 (100 %, 95 % interval 72.2 to 100)\n" in shown.out
    report = json.loads(cli("evaluate", run.directory, "--episodes", "3", "--json").out)
    assert report["success_rate"] == 1.0
    assert report["outcomes"] == [{"is_success": True}] * 3


def test_a_training_episode_is_shown_with_its_outcome(run: rlagents.Run) -> None:
    found = set()
    for episode in run.episodes()[:20]:
        path = run.record_training_episode(episode.episode)
        about = json.loads(path.with_suffix(".json").read_text())
        won = episode.end == "terminated" and episode.episodic_return > -0.125 * (
            episode.episodic_length
        )
        assert about["completed"] is won
        assert path.stem.endswith("-completed") == won
        found.add(won)
    assert found == {True, False}


def test_tiles_are_completed_if_all_of_them_are(run: rlagents.Run, tmp_path: Path) -> None:
    (path,) = run.record(3, tiled=True)
    assert path.stem.endswith("-completed")
    about = json.loads(path.with_suffix(".json").read_text())
    assert [one["completed"] for one in about["episodes"]] == [True] * 3
    (first,) = run.record(3, tiled=True, checkpoint="last", seed=5, output=tmp_path / "a.mp4")
    assert first == tmp_path / "a.mp4"  # as the user says
