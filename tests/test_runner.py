"""The loop, with an agent and environments that do nothing but take notes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import rlagents
from rlagents import runner as runner_module
from rlagents.agents.base import Agent, Policy
from rlagents.config import RunConfig, build_config, parse_option_values
from rlagents.envs import EnvFault, VectorStep
from rlagents.errors import RunFailedError
from rlagents.evaluate import PlayedEpisode
from rlagents.events import (
    CheckpointDue,
    EnvRestarted,
    EpisodeEnded,
    Evaluated,
    Event,
    Logged,
    RunEnded,
    RunStarted,
)
from rlagents.runner import Runner
from rlagents.types import Array, BoolArray, IntArray, Metrics, Transition

NOWHERE = -7.0  # in the rows of waiting environments, which mean nothing


def short(seeds: Any) -> Any:
    """Seeds as a float32 can hold them."""
    return np.asarray(seeds) % 2**20


class ScriptedEnv:
    """Episodes of known lengths; an observation is [environment, seed, time].

    Args:
        lengths: of the episodes of each environment, over and over.
        log: where calls are noted.
        truncated: whether episodes are cut off rather than over.
        lives: at which times of an episode a life is lost.
        rewards: of a step, by its time.
    """

    def __init__(
        self,
        lengths: Sequence[Sequence[int]],
        log: list[str] | None = None,
        *,
        truncated: bool = False,
        lives: Sequence[int] = (),
        reward: Callable[[int], float] = lambda time: 1.0,
    ) -> None:
        self.num_envs = len(lengths)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space: gym.Space[Any] = gym.spaces.Discrete(3)
        self.log = [] if log is None else log
        self.resets: list[list[tuple[int, int]]] = []  # (environment, seed) of each call
        self.sent: list[list[int]] = []
        self.closed = False
        self._lengths = lengths
        self._truncated = truncated
        self._lives = lives
        self._reward = reward
        self._episode = np.full(self.num_envs, -1)
        self._time = np.zeros(self.num_envs, dtype=np.int64)
        self._playing = np.zeros(self.num_envs, dtype=np.bool_)
        self._seeds = np.zeros(self.num_envs, dtype=np.int64)
        self._rows = np.full((self.num_envs, 3), NOWHERE, dtype=np.float32)

    def _observe(self, mask: BoolArray) -> Array:
        rows = np.stack([np.arange(self.num_envs), short(self._seeds), self._time], axis=1)
        self._rows[mask] = rows[mask]
        return self._rows.copy()

    def reset(self, mask: BoolArray, seeds: Sequence[int]) -> Array:
        self.log.append("reset")
        chosen = np.flatnonzero(mask).tolist()
        assert len(chosen) == len(seeds)
        self.resets.append(list(zip(chosen, seeds, strict=True)))
        self._episode[mask] += 1
        self._time[mask] = 0
        self._seeds[mask] = seeds
        self._playing |= mask
        return self._observe(mask)

    def send(self, actions: IntArray) -> None:
        self.log.append("send")
        self.sent.append(actions.tolist())

    def recv(self) -> VectorStep:
        self.log.append("recv")
        playing = self._playing.copy()
        self._time[playing] += 1
        over = np.array(
            [
                playing[i] and self._time[i] >= own[self._episode[i] % len(own)]
                for i, own in enumerate(self._lengths)
            ]
        )
        lost = np.isin(self._time, self._lives) & playing & ~over
        self._playing &= ~over
        self._rows[~playing] = NOWHERE
        reward = np.array([self._reward(int(t)) for t in self._time], dtype=np.float32)
        reward[~playing] = NOWHERE
        ended, cut = (over & (not self._truncated)), over & self._truncated
        ended = ended | ~playing  # rows of waiting environments mean nothing
        return VectorStep(self._observe(playing), reward, ended, cut, lost)

    def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
        self.log.append("restore")
        self._episode += 1
        self._time[:] = [len(played) for played in actions]
        self._playing[:] = True
        self._seeds[:] = seeds
        return self._observe(self._playing)

    def close(self) -> None:
        self.closed = True


class StubPolicy(Policy):
    """Always the same values."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), "action values", torch.device("cpu"))

    def values(self, observations: Array) -> Any:
        return np.zeros((len(observations), 3), dtype=np.float32)


class StubAgent(Agent):
    """Notes what it is given."""

    def __init__(
        self,
        num_envs: int,
        log: list[str] | None = None,
        *,
        metrics: Callable[[int], Metrics] = lambda call: {},
        waiting: Callable[[StubAgent], BoolArray | None] = lambda agent: None,
    ) -> None:
        self.log = [] if log is None else log
        self.transitions: list[Transition] = []
        self.learned = 0
        self.interrupted = 0
        self._num_envs = num_envs
        self._metrics = metrics
        self._waiting = waiting

    def act(self, observation: Array) -> IntArray:
        self.log.append("act")
        self.acted_on = observation.copy()
        return (np.arange(self._num_envs) + len(self.transitions)) % 3

    def observe(self, transition: Transition) -> None:
        self.log.append("observe")
        self.transitions.append(Transition(*map(np.array, transition)))

    def learn(self) -> Metrics:
        self.log.append("learn")
        self.learned += 1
        return self._metrics(self.learned)

    def waiting(self) -> BoolArray | None:
        return self._waiting(self)

    def interrupt(self) -> None:
        self.interrupted += 1

    def gauges(self) -> dict[str, float]:
        return {"charts/epsilon": 0.25}

    def policy(self) -> Policy:
        return StubPolicy()

    def save(self, directory: Path, *, experience: bool = True) -> None:
        (directory / "state.json").write_text(json.dumps(experience))

    def load(self, directory: Path) -> None:
        assert (directory / "state.json").exists()


def make_config(**overrides: object) -> RunConfig:
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    keys = {"evaluation.period_steps": 0, "env.frame_skip": 1, **keys}
    return build_config({"env": {"id": "cartpole"}}, keys, "test")


def make_runner(
    config: RunConfig,
    env: ScriptedEnv,
    agent: StubAgent | None = None,
    *,
    returns: Sequence[float] = (),
    should_stop: Callable[[], bool] = lambda: False,
) -> Runner:
    """A runner whose evaluations have the mean returns that are given, one after the other."""
    played = iter(returns)

    def make_eval_env(number: int) -> ScriptedEnv:
        # One step an episode; the reward is drawn when the first of them is played.
        rewards: list[float] = []

        def reward(_: int) -> float:
            if len(rewards) % number == 0:
                rewards.append(next(played, 0.0))
            else:
                rewards.append(rewards[-1])
            return rewards[-1]

        return ScriptedEnv([[1]] * number, reward=reward)

    return Runner(
        config,
        env,
        agent or StubAgent(env.num_envs),
        make_eval_env=make_eval_env,
        should_stop=should_stop,
    )


def of_kind(events: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def steps_of(events: Sequence[Event], kind: type[Any]) -> list[int]:
    return [event.clock.step for event in of_kind(events, kind)]


# --- the loop ----------------------------------------


def test_the_order_of_a_step() -> None:
    """Learning happens while the emulators run, with what was seen before."""
    log: list[str] = []
    env, agent = ScriptedEnv([[100]], log), StubAgent(1, log)
    list(make_runner(make_config(total_steps=3), env, agent).run())
    assert log == ["reset"] + ["act", "send", "learn", "recv", "observe"] * 3


def test_transitions_are_what_was_seen() -> None:
    env = ScriptedEnv([[3, 2], [5]])
    agent = StubAgent(2)
    list(make_runner(make_config(total_steps=20), env, agent).run())
    assert len(agent.transitions) == 10
    seeds = [[short(s) for resets in env.resets for j, s in resets if j == i] for i in (0, 1)]
    time = [0, 0]
    episode = [0, 0]
    for step, transition in enumerate(agent.transitions):
        for i, lengths in enumerate([[3, 2], [5]]):
            over = time[i] + 1 == lengths[episode[i] % len(lengths)]
            seed = seeds[i][episode[i]]
            assert transition.observation[i].tolist() == [i, seed, time[i]]
            # The true successor, also at an episode's end: never what a reset shows.
            assert transition.next_observation[i].tolist() == [i, seed, time[i] + 1]
            assert transition.action[i] == (i + step) % 3
            assert transition.reward[i] == 1
            assert transition.terminated[i] == transition.episode_over[i] == over
            time[i], episode[i] = (0, episode[i] + 1) if over else (time[i] + 1, episode[i])
    assert env.sent == [transition.action.tolist() for transition in agent.transitions]


def test_a_truncated_episode_is_over_but_not_terminated() -> None:
    env = ScriptedEnv([[4]], truncated=True)
    agent = StubAgent(1)
    events = list(make_runner(make_config(total_steps=8), env, agent).run())
    over = [bool(transition.episode_over[0]) for transition in agent.transitions]
    assert over == [False, False, False, True] * 2
    assert not any(transition.terminated[0] for transition in agent.transitions)
    assert [event.episode.end for event in of_kind(events, EpisodeEnded)] == ["truncated"] * 2


@pytest.mark.parametrize("counts", [False, True])
def test_a_lost_life(counts: bool) -> None:
    """It cuts the bootstrap where the config says so; the episode goes on in any case."""
    env = ScriptedEnv([[6]], lives=[2, 4])
    agent = StubAgent(1)
    config = make_config(total_steps=6, env__life_loss_terminates=counts)
    events = list(make_runner(config, env, agent).run())
    terminated = [bool(transition.terminated[0]) for transition in agent.transitions]
    assert terminated == [False, counts, False, counts, False, True]
    assert [bool(t.episode_over[0]) for t in agent.transitions] == [False] * 5 + [True]
    (ended,) = of_kind(events, EpisodeEnded)
    assert (ended.episode.episodic_length, ended.episode.episodic_return) == (6, 6.0)
    assert ended.episode.end == "terminated"
    assert len(env.resets) == 2  # at the start and after the end


class FailingEnv(ScriptedEnv):
    """Each third episode of environment 1 is cut off by a failure in its second step."""

    def __init__(self, lengths: Sequence[Sequence[int]]) -> None:
        super().__init__(lengths)
        self._faults: list[EnvFault] = []

    def recv(self) -> VectorStep:
        step = super().recv()
        self._faults = []
        if self._playing[1] and self._time[1] == 2 and self._episode[1] % 3 == 2:
            self._faults = [EnvFault(1, int(self._seeds[1]), 1, "it broke")]
            self._playing[1] = False
            step.truncated[1] = True
        return step

    def take_faults(self) -> list[EnvFault]:
        faults, self._faults = self._faults, []
        return faults


def test_an_agent_is_told_which_episodes_a_failure_cut_off() -> None:
    agent = StubAgent(2)
    config = make_config(total_steps=24)
    events = list(make_runner(config, FailingEnv([[4], [3]]), agent).run())
    over = [t.episode_over.tolist() for t in agent.transitions]
    failed = [t.failed.tolist() for t in agent.transitions if t.failed is not None]
    assert [row[1] for row in over] == [False, False, True] * 2 + [False, True] + [False] * 2 + [
        True,
        False,
    ]
    assert failed == [[False, number == 7] for number in range(12)]
    (restarted,) = of_kind(events, EnvRestarted)
    assert restarted.clock.step == 16
    ended = [event.episode for event in of_kind(events, EpisodeEnded)]
    assert [row.end for row in ended if row.env_index == 1][2] == "truncated"


def test_episodes_are_reported_with_their_seeds_and_actions() -> None:
    env = ScriptedEnv([[3, 1], [2]], reward=lambda time: 10.0 * time)
    agent = StubAgent(2)
    config = make_config(total_steps=12, env__frame_skip=4)
    events = list(make_runner(config, env, agent).run())
    ended = of_kind(events, EpisodeEnded)
    rows = [event.episode for event in ended]
    assert [row.episode for row in rows] == list(range(len(rows)))
    assert [(row.step, row.env_index, row.episodic_length) for row in rows] == [
        (4, 1, 2),
        (6, 0, 3),
        (8, 0, 1),
        (8, 1, 2),
        (12, 1, 2),
    ]
    assert [row.frames for row in rows] == [4 * row.step for row in rows]
    assert [row.episodic_return for row in rows] == [30.0, 60.0, 10.0, 30.0, 30.0]
    seeds = {i: [s for reset in env.resets for j, s in reset if j == i] for i in (0, 1)}
    assert len({*seeds[0], *seeds[1]}) == len(seeds[0]) + len(seeds[1])
    for event in ended:
        assert event.episode.seed == seeds[event.episode.env_index].pop(0)
    assert ended[0].actions.tolist() == [sent[1] for sent in env.sent[:2]]
    assert ended[1].actions.tolist() == [sent[0] for sent in env.sent[:3]]
    assert ended[2].actions.tolist() == [env.sent[3][0]]


def test_seeds_depend_on_the_runs_seed() -> None:
    seeds = []
    for seed in (1, 1, 2):
        env = ScriptedEnv([[2], [2]])
        list(make_runner(make_config(total_steps=12, seed=seed), env).run())
        seeds.append([reset for resets in env.resets for reset in resets])
    assert seeds[0] == seeds[1]
    assert not {seed for _, seed in seeds[0]} & {seed for _, seed in seeds[2]}


def test_waiting_environments_are_not_counted() -> None:
    """As for REINFORCE: each environment plays two episodes, then waits for the others."""
    quota = {"done": 0}

    def waiting(agent: StubAgent) -> BoolArray:
        ended = np.zeros(2, dtype=np.int64)
        going = np.array([True, True])
        for transition in agent.transitions[quota["done"] :]:
            ended += transition.episode_over & going
            going = ended < 2
        return ended >= 2

    def learn(_: int) -> Metrics:
        if waiting(agent).all():
            quota["done"] = len(agent.transitions)
            return {"losses/policy_loss": 1.0}
        return {}

    log: list[str] = []
    env = ScriptedEnv([[1], [5]], log)
    agent = StubAgent(2, log, metrics=learn, waiting=waiting)
    events = list(make_runner(make_config(total_steps=24), env, agent).run())
    rows = [event.episode for event in of_kind(events, EpisodeEnded)]
    # Environment 0 plays 2 steps and waits for the 10 of environment 1; then all again.
    assert [(row.step, row.env_index) for row in rows] == [
        (2, 0),
        (4, 0),
        (7, 1),
        (12, 1),
        (14, 0),
        (16, 0),
        (19, 1),
        (24, 1),
    ]
    assert sum(row.episodic_length for row in rows) == 24
    assert all(row.episodic_return == row.episodic_length for row in rows)
    # With everybody waiting, nothing is played: the agent learns, and episodes begin.
    assert "observe,learn,reset,act" in ",".join(log)
    assert agent.learned == len(agent.transitions) + log.count("observe,learn,reset") + 1


def test_total_steps_need_not_be_a_multiple_of_num_envs() -> None:
    env, agent = ScriptedEnv([[100]] * 4), StubAgent(4)
    events = list(make_runner(make_config(total_steps=10), env, agent).run())
    assert len(agent.transitions) == 3
    assert steps_of(events, CheckpointDue) == [12]
    assert of_kind(events, RunEnded) == [events[-1]]
    assert events[-1].clock.step == 12
    assert events[-1].state == "finished"


def test_the_loop_begins_and_ends_with_its_events() -> None:
    runner = make_runner(make_config(total_steps=5), ScriptedEnv([[2]]))
    events = list(runner.run())
    assert isinstance(events[0], RunStarted)
    assert events[0].total_steps == 5
    assert [type(event).__name__ for event in events[-3:]] == [
        *("CheckpointDue", "Logged", "RunEnded"),
    ]
    walls = [event.clock.wall_time_s for event in events]
    assert walls == sorted(walls)


# --- schedules ----------------------------------------


@pytest.mark.parametrize(
    ("total", "period", "num_envs", "expected"),
    [
        (50, 20, 1, [20, 40, 50]),
        (40, 20, 1, [20, 40]),  # once at the end, not twice
        (15, 20, 1, [15]),
        (48, 10, 4, [12, 20, 32, 40, 48]),
        (12, 1, 4, [4, 8, 12]),
        (50, 0, 1, []),
    ],
)
def test_evaluations_come_at_multiples_and_at_the_end(
    total: int, period: int, num_envs: int, expected: list[int]
) -> None:
    config = make_config(total_steps=total, evaluation__period_steps=period)
    events = list(make_runner(config, ScriptedEnv([[100]] * num_envs)).run())
    assert steps_of(events, Evaluated) == expected


@pytest.mark.parametrize(
    ("total", "period", "num_envs", "expected"),
    [
        (50, 20, 1, [(20, "period"), (40, "period"), (50, "end")]),
        (40, 20, 1, [(20, "period"), (40, "end")]),
        (15, 20, 1, [(15, "end")]),
        (22, 10, 4, [(12, "period"), (20, "period"), (24, "end")]),
    ],
)
def test_checkpoints_come_at_multiples_and_at_the_end(
    total: int, period: int, num_envs: int, expected: list[tuple[int, str]]
) -> None:
    config = make_config(total_steps=total, checkpoint__period_steps=period)
    events = list(make_runner(config, ScriptedEnv([[100]] * num_envs)).run())
    due = of_kind(events, CheckpointDue)
    assert [(event.clock.step, event.reason) for event in due] == expected


def test_the_best_is_kept_and_of_equals_the_later() -> None:
    config = make_config(
        total_steps=70,
        evaluation__period_steps=10,
        evaluation__episodes=2,
        checkpoint__period_steps=1_000,
    )
    returns = [1.0, 0.5, 2.0, 2.0, 1.0, 3.0, 2.0]
    events = list(make_runner(config, ScriptedEnv([[100]]), returns=returns).run())
    evaluated = of_kind(events, Evaluated)
    means = [np.mean([e.episodic_return for e in event.episodes]) for event in evaluated]
    assert means == returns
    assert [event.is_best for event in evaluated] == [
        *(True, False, True, True, False, True, False),
    ]
    due = of_kind(events, CheckpointDue)
    assert [(event.clock.step, event.is_best) for event in due] == [
        *((10, True), (30, True), (40, True), (60, True), (70, False)),
    ]


@pytest.mark.parametrize(
    ("goal", "last_step"), [(None, 50), (4.0, 50), (3.0, 40), (2.0, 30), (1.5, 30), (0.5, 10)]
)
def test_an_evaluation_that_is_good_enough_ends_the_run(goal: float | None, last_step: int) -> None:
    config = make_config(
        total_steps=50,
        evaluation__period_steps=10,
        evaluation__episodes=2,
        evaluation__stop_return=goal,
        checkpoint__period_steps=1_000,
    )
    runner = make_runner(config, ScriptedEnv([[100]]), returns=[1.0, 0.5, 2.0, 3.0, 2.0])
    events = list(runner.run())
    assert steps_of(events, Evaluated) == list(range(10, last_step + 1, 10))
    assert [event.is_enough for event in of_kind(events, Evaluated)][:-1].count(True) == 0
    assert of_kind(events, Evaluated)[-1].is_enough == (goal is not None and goal <= 3)
    last = of_kind(events, CheckpointDue)[-1]
    assert (last.clock.step, last.reason) == (last_step, "end")
    assert events[-1] == RunEnded(events[-1].clock, "finished")


def test_more_episodes_are_played_only_while_they_may_end_the_run() -> None:
    config = make_config(
        total_steps=50,
        evaluation__period_steps=10,
        evaluation__episodes=2,
        evaluation__stop_return=2.0,
        evaluation__stop_episodes=5,
    )
    # Two episodes each have these returns: three evaluations that end too early, and one of 5.
    returns = [*(1.0,), *(3.0, 0.5), *(2.0, 2.0, 1.0), *(2.0, 2.5, 2.0)]
    runner = make_runner(config, ScriptedEnv([[100]]), returns=returns)
    evaluated = of_kind(list(runner.run()), Evaluated)
    found = [[e.episodic_return for e in event.episodes] for event in evaluated]
    assert found[0] == [1, 1]
    assert found[1] == [3, 3, 0.5, 0.5]
    assert found[2] == [2, 2, 2, 2, 1]
    assert found[3] == [2, 2, 2.5, 2.5, 2]
    assert [event.is_enough for event in evaluated] == [False, False, False, True]
    seeds = [[e.seed for e in event.episodes] for event in evaluated]
    assert len(set(seeds[3])) == 5
    assert all(seeds[3][: len(few)] == few for few in seeds)


def test_a_run_that_reached_its_return_does_not_go_on_when_it_is_brought_back(
    tmp_path: Path,
) -> None:
    keys: dict[str, object] = {"evaluation__stop_return": 2.0, "evaluation__period_steps": 10}
    first = make_runner(make_config(total_steps=50, **keys), ScriptedEnv([[100]]), returns=[2.0])
    for event in first.run():  # killed before it could say that it is finished
        if isinstance(event, CheckpointDue):
            event.write(tmp_path, True)
            break
    second = make_runner(make_config(total_steps=50, **keys), ScriptedEnv([[100]]))
    assert second.load(tmp_path) is None
    assert isinstance(list(second.run())[-1], RunEnded)
    assert second.step == 10


# 50 episodes of return 2, 100 of 1, 100 of 2, 100 of 1: the last 100 have a mean of 1.6 after step
# 320, and 50 had one of 2 after step 100.
RISING_LENGTHS = [[*[2] * 50, *[1] * 100, *[2] * 100, *[1] * 100]]


@pytest.mark.parametrize(
    ("period", "late_return", "late_period", "expected"),
    [
        (100, None, None, [100, 200, 300, 400, 480]),
        (100, 1.6, 30, [100, 200, 300, 330, 360, 390, 420, 450, 480]),
        (100, 1.7, 30, [100, 200, 300, 360, 390, 420, 450, 480]),
        (100, 1.6, 150, [100, 200, 300, 450, 480]),
        (160, 1.6, 150, [160, 320, 450, 480]),  # one that is due when the return is reached
        (0, 1.6, 30, []),
    ],
)
def test_evaluations_come_at_another_period_once_training_has_a_return(
    period: int, late_return: float | None, late_period: int | None, expected: list[int]
) -> None:
    config = make_config(
        total_steps=480,
        evaluation__period_steps=period,
        evaluation__episodes=1,
        evaluation__late_return=late_return,
        evaluation__late_period_steps=late_period,
    )
    events = list(make_runner(config, ScriptedEnv(RISING_LENGTHS)).run())
    assert steps_of(events, Evaluated) == expected


def test_a_run_that_is_brought_back_evaluates_as_often_as_before(tmp_path: Path) -> None:
    config = make_config(
        total_steps=540,
        evaluation__period_steps=100,
        evaluation__episodes=1,
        evaluation__late_return=1.6,
        evaluation__late_period_steps=30,
        checkpoint__period_steps=445,  # when the last 100 have a mean below 1.6 again
    )
    for event in make_runner(config, ScriptedEnv(RISING_LENGTHS)).run():
        if isinstance(event, CheckpointDue) and event.clock.step == 445:
            event.write(tmp_path, True)
    second = make_runner(config, ScriptedEnv([[1]]))
    assert second.load(tmp_path) is None
    assert steps_of(list(second.run()), Evaluated) == [450, 480, 510, 540]


def test_an_evaluation_comes_before_the_checkpoint_of_its_step() -> None:
    config = make_config(total_steps=20, evaluation__period_steps=10, checkpoint__period_steps=10)
    events = list(make_runner(config, ScriptedEnv([[100]])).run())
    kinds = [type(e).__name__ for e in events if isinstance(e, Evaluated | CheckpointDue)]
    assert kinds == ["Evaluated", "CheckpointDue"] * 2


# --- numbers ----------------------------------------


def test_metrics_are_means_over_the_updates_since_the_last_line() -> None:
    def metrics(call: int) -> Metrics:
        seldom = {"losses/entropy": float(call)} if call % 4 == 0 else {}
        return {"losses/td_loss": torch.tensor(float(call)), **seldom} if call % 2 == 0 else {}

    config = make_config(total_steps=8, logging__period_s=3600)
    env = ScriptedEnv([[3]])
    events = list(make_runner(config, env, StubAgent(1, metrics=metrics)).run())
    (logged,) = of_kind(events, Logged)
    assert logged.metrics["losses/td_loss"] == pytest.approx((2 + 4 + 6 + 8) / 4)
    assert logged.metrics["losses/entropy"] == pytest.approx((4 + 8) / 2)
    assert logged.metrics["charts/epsilon"] == 0.25
    assert logged.metrics["charts/episodic_return"] == 3
    assert logged.metrics["charts/episodic_length"] == 3
    assert logged.metrics["charts/SPS"] > 0
    assert all(isinstance(value, float) for value in logged.metrics.values())


def test_returns_are_averaged_over_the_last_hundred_episodes() -> None:
    config = make_config(total_steps=150, logging__period_s=3600)
    first = {"left": 50}

    def reward(_: int) -> float:
        first["left"] -= 1
        return 5.0 if first["left"] >= 0 else 1.0

    events = list(make_runner(config, ScriptedEnv([[1]], reward=reward)).run())
    assert of_kind(events, Logged)[-1].metrics["charts/episodic_return"] == 1.0


@pytest.mark.parametrize("stops", [False, True])
def test_no_line_of_metrics_comes_twice(stops: bool) -> None:
    """Also where the last step's line is due just before the run ends."""
    agent = StubAgent(1)
    config = make_config(total_steps=5, logging__period_s=1e-9)
    env = ScriptedEnv([[100]])
    stop: Callable[[], bool] = lambda: stops and len(agent.transitions) == 3  # noqa: E731
    events = list(make_runner(config, env, agent, should_stop=stop).run())
    assert steps_of(events, Logged) == [1, 2, 3] + ([] if stops else [4, 5])
    assert all(event.metrics["charts/SPS"] > 0 for event in of_kind(events, Logged))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_fails_the_run(bad: float) -> None:
    def metrics(call: int) -> Metrics:
        return {"losses/td_loss": torch.tensor(bad if call == 3 else 1.0)}

    config = make_config(total_steps=20, logging__period_s=1e-9)
    runner = make_runner(config, ScriptedEnv([[100]]), StubAgent(1, metrics=metrics))
    events: list[Event] = []
    with pytest.raises(RunFailedError, match=r"losses/td_loss.*--agent\.learning-rate"):
        events.extend(runner.run())
    assert runner.step < 20


def fails_unsaved(agent: StubAgent, when: str) -> None:
    """Run an agent whose twelfth loss is not finite up to what would save it, which must not."""
    config = make_config(
        total_steps=20 if when != "period" else 40,
        logging__period_s=3600,
        checkpoint__period_steps=10 if when == "period" else 1000,
        evaluation__period_steps=15 if when == "best" else 0,
    )
    runner = make_runner(
        config,
        ScriptedEnv([[100]]),
        agent,
        should_stop=lambda: when == "stop" and agent.learned >= 15,
    )
    events: list[Event] = []
    with pytest.raises(RunFailedError):
        events.extend(runner.run())
    assert steps_of(events, CheckpointDue) == ([10] if when == "period" else [])


@pytest.mark.parametrize("when", ["period", "best", "end", "stop"])
def test_what_has_diverged_is_never_saved(when: str) -> None:
    """The last checkpoint must be a good one, however long the logging interval is."""

    def metrics(call: int) -> Metrics:
        return {"losses/td_loss": torch.tensor(math.nan if call >= 12 else 1.0)}

    fails_unsaved(StubAgent(1, metrics=metrics), when)


@pytest.mark.parametrize("when", ["period", "best", "end", "stop"])
def test_updates_that_are_still_running_are_asked_for_first(when: str) -> None:
    """What comes of them is known before the agent is judged or saved."""

    class Late(StubAgent):
        def settle(self) -> Metrics:
            self.log.append("settle")
            return {"losses/td_loss": torch.tensor(math.nan if self.learned >= 12 else 1.0)}

        def policy(self) -> Policy:
            assert self.log[-1] == "settle"
            return StubPolicy()

    fails_unsaved(Late(1), when)


@pytest.mark.parametrize(("period", "expected"), [(0, [20, 40, 40]), (15, [15, 20, 30, 40, 40])])
def test_a_learner_is_waited_for_only_where_something_is_judged_or_saved(
    period: int, expected: list[int]
) -> None:
    settled: list[int] = []

    class Noting(StubAgent):
        def settle(self) -> Metrics:
            settled.append(len(self.transitions))
            return {}

    config = make_config(
        total_steps=40,
        evaluation__period_steps=period,
        evaluation__episodes=1,
        checkpoint__period_steps=20,
    )
    list(make_runner(config, ScriptedEnv([[100]]), Noting(1)).run())
    assert settled == expected  # twice at the end, since it may have been brought back there


# --- stopping, saving, going back ----------------------------------------


def test_a_stop_saves_and_ends() -> None:
    agent = StubAgent(1)
    runner = make_runner(
        make_config(total_steps=100),
        ScriptedEnv([[100]]),
        agent,
        should_stop=lambda: len(agent.transitions) == 7,
    )
    events = list(runner.run())
    assert runner.step == 7
    assert [type(event).__name__ for event in events[-3:]] == [
        *("Logged", "CheckpointDue", "RunEnded"),
    ]
    assert of_kind(events, CheckpointDue)[-1].reason == "stop"
    assert events[-1].state == "stopped"


def test_a_stop_in_an_evaluation_is_prompt_and_the_evaluation_is_made_up_for(
    tmp_path: Path,
) -> None:
    config = make_config(total_steps=30, evaluation__period_steps=10)
    asked = {"times": 0}

    def stop_in_first_evaluation() -> bool:
        asked["times"] += 1
        return asked["times"] == 11  # ten steps, then the first question of the evaluation

    first = make_runner(config, ScriptedEnv([[100]]), should_stop=stop_in_first_evaluation)
    events = list(first.run())
    assert steps_of(events, Evaluated) == []
    assert events[-1].state == "stopped"
    assert first.step == 10
    (due,) = of_kind(events, CheckpointDue)
    due.write(tmp_path, True)
    second = make_runner(config, ScriptedEnv([[100]]))
    assert second.load(tmp_path) is None
    events = list(second.run())
    assert steps_of(events, Evaluated) == [10, 20, 30]


def test_a_run_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    config = make_config(total_steps=14, env__num_envs=2)
    first = make_runner(config, ScriptedEnv([[4], [5]]), StubAgent(2))
    (due,) = of_kind(list(first.run()), CheckpointDue)
    due.write(tmp_path, True)
    env, agent = ScriptedEnv([[4], [5]]), StubAgent(2)
    second = make_runner(make_config(total_steps=24, env__num_envs=2), env, agent)
    assert second.load(tmp_path) is None
    assert (second.step, second.episodes) == (14, 2)
    events = list(second.run())
    assert env.log[:2] == ["restore", "send"]  # nobody begins anew
    assert agent.interrupted == 0
    rows = [event.episode for event in of_kind(events, EpisodeEnded)]
    assert [(row.episode, row.step, row.env_index, row.episodic_length) for row in rows] == [
        *((2, 16, 0, 4), (3, 20, 1, 5), (4, 24, 0, 4)),
    ]
    assert all(row.episodic_return == row.episodic_length for row in rows)
    metrics = of_kind(events, Logged)[-1].metrics  # over the episodes from before, too
    assert metrics["charts/episodic_return"] == pytest.approx((4 + 5 + 4 + 5 + 4) / 5)
    assert metrics["charts/episodic_length"] == pytest.approx((4 + 5 + 4 + 5 + 4) / 5)


def test_environments_that_come_back_otherwise_begin_new_episodes(tmp_path: Path) -> None:
    config = make_config(total_steps=6)
    (due,) = of_kind(list(make_runner(config, ScriptedEnv([[4]])).run()), CheckpointDue)
    due.write(tmp_path, True)

    class Different(ScriptedEnv):
        def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
            return super().restore(seeds, actions) + 1

    env, agent = Different([[4]]), StubAgent(1)
    second = make_runner(make_config(total_steps=12), env, agent)
    problem = second.load(tmp_path)
    assert problem is not None
    assert "did not come back" in problem
    assert agent.interrupted == 1
    list(second.run())
    assert env.log[1] == "reset"
    assert agent.transitions[0].observation[0][2] == 0


def test_environments_that_show_no_number_come_back_too(tmp_path: Path) -> None:
    class Nowhere(ScriptedEnv):
        def _observe(self, mask: BoolArray) -> Array:
            rows = super()._observe(mask)
            rows[:, 1] = math.nan
            return rows

    config = make_config(total_steps=6)
    (due,) = of_kind(list(make_runner(config, Nowhere([[4]])).run()), CheckpointDue)
    due.write(tmp_path, True)
    second = make_runner(make_config(total_steps=12), Nowhere([[4]]))
    assert second.load(tmp_path) is None


def test_environments_that_fail_to_come_back_begin_new_episodes(tmp_path: Path) -> None:
    config = make_config(total_steps=6)
    (due,) = of_kind(list(make_runner(config, ScriptedEnv([[4]])).run()), CheckpointDue)
    due.write(tmp_path, True)

    class Fails(ScriptedEnv):
        def restore(self, seeds: Sequence[int], actions: Sequence[Array]) -> Array:
            raise RuntimeError("this game is over")

    env, agent = Fails([[4]]), StubAgent(1)
    second = make_runner(make_config(total_steps=12), env, agent)
    problem = second.load(tmp_path)
    assert problem is not None
    assert "did not come back" in problem
    assert "this game is over" in problem
    assert agent.interrupted == 1
    list(second.run())
    assert env.log[0] == "reset"


def test_environments_that_do_not_reproduce_themselves_are_not_restored(tmp_path: Path) -> None:
    config = make_config(total_steps=6)
    (due,) = of_kind(list(make_runner(config, ScriptedEnv([[4]])).run()), CheckpointDue)
    due.write(tmp_path, True)
    env, agent = ScriptedEnv([[4]]), StubAgent(1)
    second = make_runner(make_config(total_steps=12), env, agent)
    assert "does not reproduce itself" in str(second.load(tmp_path, reproducible=False))
    assert agent.interrupted == 1
    list(second.run())
    assert env.log[0] == "reset"
    assert "restore" not in env.log


def test_without_experience_episodes_begin_anew_with_other_seeds(tmp_path: Path) -> None:
    config = make_config(total_steps=6)
    env = ScriptedEnv([[4]])
    (due,) = of_kind(list(make_runner(config, env).run()), CheckpointDue)
    due.write(tmp_path, False)
    assert json.loads((tmp_path / "agent" / "state.json").read_text()) is False
    again, agent = ScriptedEnv([[4]]), StubAgent(1)
    second = make_runner(make_config(total_steps=12), again, agent)
    assert "stored experience" in str(second.load(tmp_path))
    assert agent.interrupted == 1
    list(second.run())
    used = {seed for reset in env.resets for _, seed in reset}
    assert not used & {seed for reset in again.resets for _, seed in reset}


def test_wall_time_goes_on(tmp_path: Path) -> None:
    config = make_config(total_steps=3)
    first = list(make_runner(config, ScriptedEnv([[4]])).run())
    (due,) = of_kind(first, CheckpointDue)
    due.write(tmp_path, True)
    state = json.loads((tmp_path / "runner.json").read_text())
    state["wall_time_s"] = 1000.0
    (tmp_path / "runner.json").write_text(json.dumps(state))
    second = make_runner(make_config(total_steps=6), ScriptedEnv([[4]]))
    second.load(tmp_path)
    events = list(second.run())
    assert 1000 <= events[0].clock.wall_time_s <= events[-1].clock.wall_time_s < 1100


def test_closing_closes_all_environments() -> None:
    env = ScriptedEnv([[4]])
    made: list[ScriptedEnv] = []

    def make_eval_env(number: int) -> ScriptedEnv:
        made.append(ScriptedEnv([[1]] * number))
        return made[-1]

    config = make_config(total_steps=30, evaluation__period_steps=10, evaluation__episodes=25)
    runner = Runner(config, env, StubAgent(1), make_eval_env=make_eval_env)
    list(runner.run())
    runner.close()
    assert env.closed
    assert [one.closed for one in made] == [True]  # made once, used three times
    assert made[0].num_envs == 20


# --- every key of the tables that the runner and its observers read ---


def train(directory: Path, tiny: tuple[str, ...], **overrides: object) -> rlagents.Run:
    words = zip(tiny[::2], tiny[1::2], strict=True)
    keys = {word[2:].replace("-", "_"): value for word, value in words}
    changed = {name.replace("__", "."): value for name, value in overrides.items()}
    changed.setdefault("recording.enabled", False)  # the most expensive part
    return rlagents.train(
        "cartpole-dqn",
        {**parse_option_values(keys), **changed},
        runs_dir=directory,
        name="run",
        quiet=True,
    )


def spy_on_evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    calls: list[Mapping[str, Any]] = []
    play = runner_module.play_episodes

    def spy(*arguments: Any, **options: Any) -> tuple[PlayedEpisode, ...]:
        calls.append({"seeds": arguments[2], **options})
        return play(*arguments, **options)

    monkeypatch.setattr(runner_module, "play_episodes", spy)
    return calls


def test_evaluation_keys(
    tmp_path: Path, tiny: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spy_on_evaluations(monkeypatch)
    run = train(
        tmp_path,
        tiny,
        evaluation__period_steps=120,
        evaluation__episodes=4,
        evaluation__epsilon=1.0,
    )
    rows = (run.directory / "evaluations.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["120", "240", "360", "480"]
    assert {row.split(",")[2] for row in rows} == {"4"}
    assert [len(call["seeds"]) for call in calls] == [4] * 4
    assert {(call["epsilon"], call["sample"]) for call in calls} == {(1.0, False)}
    played = run.evaluate(episodes=20).played
    assert {int(action) for episode in played for action in episode.actions[:1]} == {0, 1}


def test_evaluation_sample_draws_from_a_policy(tmp_path: Path) -> None:
    lengths = []
    for sample in (False, True, True):
        run = rlagents.train(
            "cartpole-reinforce",
            {
                "total_steps": 64,
                "env.num_envs": 4,
                "agent.episodes_per_update": 8,
                "evaluation.sample": sample,
                "evaluation.episodes": 8,
                "recording.enabled": False,
            },
            runs_dir=tmp_path / str(len(lengths)),
            quiet=True,
        )
        lengths.append(run.evaluate().lengths)
        evaluated = (run.directory / "evaluations.csv").read_text().splitlines()[-1].split(",")
        lengths[-1].append(float(evaluated[3]))
    assert lengths[0] != lengths[1] == lengths[2]


def test_no_evaluation_means_no_videos_and_no_best(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    run = train(tmp_path, tiny, evaluation__period_steps=0)
    assert len((run.directory / "evaluations.csv").read_text().splitlines()) == 1
    assert not list((run.directory / "videos").iterdir())
    index = json.loads((run.directory / "checkpoints" / "index.json").read_text())
    assert index == {"last": "step-480"}


def test_recording_enabled(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    run = train(tmp_path, tiny, recording__enabled=False)
    assert not list((run.directory / "videos").iterdir())
    assert len((run.directory / "evaluations.csv").read_text().splitlines()) == 4


def test_recording_episodes_and_scale(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    for scale in (1, 2):
        run = train(
            tmp_path / str(scale),
            tiny,
            total_steps=80,
            recording__enabled=True,
            recording__episodes=2,
            recording__scale=scale,
        )
        films = sorted((run.directory / "videos").glob("*.mp4"))
        assert [film.name.split("-")[3] for film in films] == ["0", "1"]
        with av.open(str(films[0])) as container:
            size = container.streams.video[0].width, container.streams.video[0].height
        assert size == (600 * scale, 400 * scale)


def steps_of_videos(run: rlagents.Run) -> list[int]:
    return sorted(int(film.name.split("-")[1]) for film in run.directory.glob("videos/*.mp4"))


@pytest.mark.parametrize(
    ("period", "recorded"),
    [(None, [40, 80, 120, 160, 200, 240]), (100, [40, 120, 200, 240]), (500, [40, 240])],
)
def test_recording_period(
    tmp_path: Path, tiny: tuple[str, ...], period: int | None, recorded: list[int]
) -> None:
    run = train(
        tmp_path,
        tiny,
        total_steps=240,
        evaluation__period_steps=40,
        evaluation__episodes=1,
        recording__enabled=True,
        recording__period_steps=period,
    )
    assert steps_of_videos(run) == recorded


def test_a_run_that_is_brought_back_knows_its_last_evaluation(tmp_path: Path) -> None:
    config = make_config(total_steps=60, evaluation__period_steps=20, evaluation__episodes=1)
    events = []
    for event in make_runner(config, ScriptedEnv([[10]])).run():
        events.append(event)
        if isinstance(event, CheckpointDue) and event.clock.step == 20:
            event.write(tmp_path, True)
    assert [event.previous_step for event in of_kind(events, Evaluated)] == [-1, 20, 40]
    second = make_runner(config, ScriptedEnv([[10]]))
    assert second.load(tmp_path) is None
    again = of_kind(list(second.run()), Evaluated)
    assert [event.previous_step for event in again] == [20, 40]


def test_checkpoint_period_and_keep(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    run = train(
        tmp_path,
        tiny,
        evaluation__period_steps=0,
        checkpoint__period_steps=80,
        checkpoint__keep=4,
    )
    names = {path.name for path in (run.directory / "checkpoints").glob("step-*")}
    assert names == {"step-240", "step-320", "step-400", "step-480"}


@pytest.mark.parametrize(
    ("replay", "with_experience"),
    [("always", {160, 320, 480}), ("on-exit", {480}), ("never", set())],
)
def test_checkpoint_replay(
    tmp_path: Path, tiny: tuple[str, ...], replay: str, with_experience: set[int]
) -> None:
    run = train(
        tmp_path,
        tiny,
        evaluation__period_steps=0,
        checkpoint__keep=5,
        checkpoint__replay=replay,
    )
    found = {
        int(path.parents[1].name.split("-")[1])
        for path in (run.directory / "checkpoints").glob("step-*/agent/replay")
    }
    assert found == with_experience


@pytest.mark.parametrize(
    ("replay", "with_experience"), [("always", {320, 480, 640, 800}), ("on-exit", {800})]
)
def test_checkpoint_replay_of_a_run_that_went_on(
    tmp_path: Path, tiny: tuple[str, ...], replay: str, with_experience: set[int]
) -> None:
    """What was exact once says that it is not any more, and can still be used."""
    run = train(
        tmp_path,
        tiny,
        evaluation__period_steps=0,
        checkpoint__keep=4,
        checkpoint__replay=replay,
    )
    run = rlagents.resume(run.directory, total_steps=800, quiet=True)
    folder = run.directory / "checkpoints"
    found = {
        step for step in (320, 480, 640, 800) if (folder / f"step-{step}/agent/replay").is_dir()
    }
    assert found == with_experience
    exact = json.loads((folder / "step-480" / "runner.json").read_text())["experience"]
    assert exact is (replay == "always")
    assert run.policy(480).act(np.zeros((2, 4), dtype=np.float32)).shape == (2,)
    (folder / "index.json").write_text(json.dumps({"last": "step-480"}))
    rlagents.resume(run.directory, total_steps=900, quiet=True)
    kind = "exactly" if replay == "always" else "but not exactly"
    assert f"resuming at step 480, {kind}" in (run.directory / "run.log").read_text()


@pytest.mark.parametrize("replay", ["never", "on-exit"])
@pytest.mark.parametrize("recipe", ["cartpole-dqn", "cartpole-reinforce"])
def test_a_run_goes_on_from_a_checkpoint_without_experience(
    tmp_path: Path, tiny: tuple[str, ...], replay: str, recipe: str
) -> None:
    """Not exactly, but it goes on: it says so, fills its replay again and learns."""
    overrides: dict[str, Any] = {
        "total_steps": 480,
        "evaluation.period_steps": 0,
        "checkpoint.period_steps": 160,
        "checkpoint.replay": replay,
    }
    if recipe == "cartpole-dqn":
        overrides |= {"agent.learning_starts": 96, "replay.capacity": 400}
    run = rlagents.train(recipe, overrides, runs_dir=tmp_path, name="run", quiet=True)
    if replay == "on-exit":  # as after a kill: only those of the periods are there
        folder = run.directory / "checkpoints"
        steps = sorted(int(path.name.split("-")[1]) for path in folder.glob("step-*"))
        (folder / "index.json").write_text(json.dumps({"last": f"step-{steps[-2]}"}))
    before = run.checkpoint("last").step
    again = rlagents.resume(run.directory, total_steps=1_000, quiet=True)
    assert "not exactly" in (run.directory / "run.log").read_text()
    assert again.status()["state"] == "finished"
    assert again.status()["step"] >= 1_000
    steps = [episode.step for episode in again.episodes()]
    assert steps == sorted(steps)
    assert steps[-1] > before
    numbers = [episode.episode for episode in again.episodes()]
    assert numbers == list(range(len(numbers)))
    assert len({episode.seed for episode in again.episodes()}) == len(numbers)


def test_logging_period(tmp_path: Path, tiny: tuple[str, ...]) -> None:
    counts = []
    for period in (1e-6, 3600):
        run = train(
            tmp_path / str(period), tiny, evaluation__period_steps=0, logging__period_s=period
        )
        counts.append(len((run.directory / "metrics.jsonl").read_text().splitlines()))
    assert counts[0] > 100  # a line a vector step
    assert counts[1] == 1  # one at the end
