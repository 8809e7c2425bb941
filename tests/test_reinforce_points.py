"""REINFORCE with `points_per_update`: updates in the middle of episodes, of whole points."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_reinforce import Stream, drive, equal, make_agent, make_tables, parameters

from rlagents.agents.reinforce import Reinforce
from rlagents.errors import UsageError
from rlagents.types import Array, IntArray, Transition

POINTS: dict[str, Any] = {
    "reset_return_at_score": True,
    "points_per_update": 5,
    "episodes_per_update": 8,  # its default
}


class Step(NamedTuple):
    observation: bytes
    action: int
    goal: float  # the discounted sum of rewards up to the next score, or to the end


def points_of(transitions: list[Transition], num_envs: int) -> list[list[Step]]:
    """Cut what every environment saw behind each reward and each end, in the order of these."""
    finished = []
    running: list[list[tuple[Array, int, float]]] = [[] for _ in range(num_envs)]
    for transition in transitions:
        for i, steps in enumerate(running):
            steps.append(
                (transition.observation[i], int(transition.action[i]), float(transition.reward[i]))
            )
            if transition.reward[i] != 0 or transition.episode_over[i]:
                last = steps[-1][2]
                finished.append(
                    [
                        Step(o.tobytes(), a, last * 0.9 ** (len(steps) - 1 - t))
                        for t, (o, a, _) in enumerate(steps)
                    ]
                )
                running[i] = []
    return finished


def test_every_point_takes_part_in_one_update(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, stream = make_agent(3, **POINTS, standardize=False), Stream(3)
    used: list[list[Step]] = []
    losses = agent._losses

    def noting(observations: Array, actions: IntArray, returns: Array) -> Any:
        rows = zip(observations, actions, returns, strict=True)
        used.append([Step(o.tobytes(), int(a), float(g)) for o, a, g in rows])
        return losses(observations, actions, returns)

    monkeypatch.setattr(agent, "_losses", noting)
    seen: list[Transition] = []
    in_updates = updates = 0
    for _ in range(80):
        stream.begin(agent.waiting())
        assert not agent.waiting().any()
        action = agent.act(stream.observation)
        points = points_of(seen, 3)
        assert bool(agent.learn()) == (len(points) - in_updates >= 5)
        if len(points) - in_updates >= 5:
            updates += 1
            new, in_updates = points[in_updates:], len(points)
            assert len(used) == in_updates
            for found, expected in zip(sorted(used[-len(new) :]), sorted(new), strict=True):
                assert [step[:2] for step in found] == [step[:2] for step in expected]
                goals = [step.goal for step in expected]
                assert [step.goal for step in found] == pytest.approx(goals, rel=1e-5)
        transition = stream.step(action)
        seen.append(copy.deepcopy(transition))
        agent.observe(transition)
    assert updates > 8


def test_a_saved_agent_goes_on_bit_for_bit(tmp_path: Path) -> None:
    agent, stream = make_agent(2, **POINTS), Stream(2)
    drive(agent, stream, 33)
    assert any(agent._finished)
    agent.save(tmp_path)
    other, same_stream = make_agent(2, **POINTS, seed=9), copy.deepcopy(stream)
    other.load(tmp_path)
    assert drive(agent, stream, 40) == drive(other, same_stream, 40)
    assert equal(parameters(agent), parameters(other))


def test_points_need_returns_that_end_with_them() -> None:
    with pytest.raises(UsageError, match="points_per_update: needs reset_return_at_score = true"):
        Reinforce.check(make_tables(points_per_update=8), num_envs=2)


def test_episodes_that_would_count_for_nothing_are_refused() -> None:
    tables = make_tables(**POINTS | {"episodes_per_update": 4})
    with pytest.raises(UsageError, match=r"points_per_update: .* episodes_per_update = 4 would do"):
        Reinforce.check(tables, num_envs=2)
    Reinforce.check(make_tables(**POINTS), num_envs=3)  # 8 episodes cannot be shared by 3
