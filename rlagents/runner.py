"""The loop: act, send, learn while the emulators run, receive, observe.

It knows nothing of files and displays: what happens is yielded as events.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlagents import seeding
from rlagents.agents.base import Agent, Fault, Policy
from rlagents.config import EvaluationConfig, RunConfig
from rlagents.envs import EnvFailedError, EnvFault, TellsFaults, VectorEnv
from rlagents.errors import RunFailedError, StoppedError
from rlagents.evaluate import PlayedEpisode, num_eval_envs, play_episodes, success_rate_of
from rlagents.events import (
    CheckpointDue,
    Clock,
    EnvRestarted,
    EpisodeEnded,
    Evaluated,
    Event,
    Logged,
    Progressed,
    RunEnded,
    RunStarted,
)
from rlagents.files import load_array, read_json, save_array
from rlagents.profile import Timer, no_timer
from rlagents.statistics import RECENT_EPISODES, success_rate
from rlagents.types import Array, Episode, Metrics, Outcome, Transition

_PROGRESS_PERIOD_S = 0.5
_NO_SUCCESS = (
    "[evaluation] stop_success: no episode of this evaluation told whether it was completed, and "
    "until one does the run ends after all its steps; an environment tells by info['is_success'] "
    "in the last step of an episode"
)


class DivergedError(RunFailedError):
    """An update was not finite, and was not made."""

    def __init__(self, fault: Fault, step: int) -> None:
        super().__init__(
            f"An update before step {step} was not finite (loss {fault.loss:g}, length of the "
            f"gradient {fault.gradient_norm:g}), so neither it nor any after it was made."
        )
        self.fault = fault
        self.step = step


@dataclass
class _Running:
    """The episode that an environment is in."""

    begun: int = 0  # episodes that this environment has begun
    seed: int = 0
    actions: list[int] = field(default_factory=list)
    episodic_return: float = 0.0
    active: bool = False  # False while the agent lets the environment wait


class Runner:
    """Plugs an agent and N environments together.

    Args:
        config: resolved.
        env: N environments.
        agent: for N environments.
        make_eval_env: makes environments for evaluation, given their number.
        should_stop: asked at each step.
        overlap: let the emulators run while the network learns. Where learning fills all cores,
            they only disturb each other (two cores, Pong: 200 steps/s against 326), so they are
            waited for first. What is learned from is the same either way, to the bit.
        timer: told what is being done; emulators that run while the network learns count where
            they are waited for.
    """

    def __init__(
        self,
        config: RunConfig,
        env: VectorEnv,
        agent: Agent,
        *,
        make_eval_env: Callable[[int], VectorEnv],
        should_stop: Callable[[], bool] = lambda: False,
        overlap: bool = True,
        timer: Timer = no_timer,
    ) -> None:
        self._timer = timer
        self._overlap = overlap
        self._config = config
        self._env = env
        self._agent = agent
        self._make_eval_env = make_eval_env
        self._eval_env: VectorEnv | None = None
        self._should_stop = should_stop
        assert config.env.frame_skip is not None  # resolved
        self._frame_skip = config.env.frame_skip
        self._step = 0
        self._episodes = 0
        self._running = [_Running() for _ in range(env.num_envs)]
        self._observation: Array = np.zeros(0)
        self._recent: deque[float] = deque(maxlen=RECENT_EPISODES)
        self._recent_lengths: deque[int] = deque(maxlen=RECENT_EPISODES)
        self._recent_successes: deque[bool | None] = deque(maxlen=RECENT_EPISODES)
        self._best: float | None = None  # mean return of the best evaluation
        self._best_success: float | None = None  # its success rate, where that is told
        self._enough = False  # whether an evaluation has reached what the run is to reach
        self._is_late = False  # whether `late_period_steps` holds
        self._next_evaluation = config.evaluation.period_steps
        self._next_checkpoint = config.checkpoint.period_steps
        self._evaluated_at = -1
        self._wall_time_before = 0.0
        self._began = time.monotonic()
        self._env_restarts = 0  # environments that failed and were made anew
        self._sums: dict[str, tuple[Any, int]] = {}  # of each metric: its sum and how many
        self._logged = (0, 0.0)  # step and wall time of the last line of metrics

    @property
    def step(self) -> int:
        """Return the agent steps done."""
        return self._step

    @property
    def evaluated_at(self) -> int:
        """Return the step of the last evaluation, -1 if there was none."""
        return self._evaluated_at

    @property
    def episodes(self) -> int:
        """Return the number of episodes finished."""
        return self._episodes

    def run(self) -> Iterator[Event]:
        """Train until all steps are done, an evaluation is good enough, or somebody asks to stop.

        Raises:
            RunFailedError: a loss is no longer finite.
        """
        self._began = time.monotonic()
        self._logged = (self._step, self._wall_time_before)
        total = self._config.total_steps
        shown = time.monotonic()
        yield RunStarted(self._clock(), total)
        yield from self._begin_episodes()
        try:
            if self._step:  # a stop may have come in an evaluation, even in the last
                yield from self._due(last=self._step >= total)
            while self._step < total and not self._enough:
                if self._should_stop():
                    raise StoppedError("stopped between two steps")
                yield from self._vector_step()
                yield from self._begin_episodes()
                yield from self._due(last=self._step >= total)
                now = time.monotonic()
                if now - shown >= _PROGRESS_PERIOD_S:
                    shown = now
                    yield Progressed(
                        self._clock(), self._mean_return(), success_rate(self._recent_successes)
                    )
                if self._clock().wall_time_s - self._logged[1] >= self._config.logging.period_s:
                    yield from self._log()
        except StoppedError:
            self._settle()
            yield from self._log()  # first, since it raises: what has diverged is not saved
            yield CheckpointDue(self._clock(), "stop", False, self.save)
            yield RunEnded(self._clock(), "stopped")
            return
        self._settle()
        yield from self._log()
        yield RunEnded(self._clock(), "finished")

    def close(self) -> None:
        """Close the environments."""
        self._env.close()
        if self._eval_env is not None:
            self._eval_env.close()

    def _vector_step(self) -> Iterator[Event]:
        if not any(running.active for running in self._running):
            self._learn()
            return
        timer = self._timer
        with timer("act"):
            action = self._agent.act(self._observation)
        with self._playing():
            self._env.send(action)
        if self._overlap:
            self._learn()
        with self._playing():
            step = self._env.recv()
        if not self._overlap:
            self._learn()
        terminated = step.terminated
        if self._config.env.life_loss_terminates:
            terminated = terminated | step.life_lost
        over = step.terminated | step.truncated
        faults = self._take_faults()
        failed = np.zeros(len(over), dtype=np.bool_)
        failed[[fault.env_index for fault in faults if fault.env_index is not None]] = True
        transition = Transition(
            self._observation, action, step.reward, step.observation, terminated, over, failed
        )
        with timer("observe"):
            self._agent.observe(transition)
        self._observation = step.observation
        self._step += sum(running.active for running in self._running)
        yield from self._note_faults(faults)
        for index, running in enumerate(self._running):
            if not running.active:
                continue
            if failed[index]:  # what was not played is no part of the episode
                yield self._end_episode(index, running, "truncated", failed=True)
                continue
            running.actions.append(int(action[index]))
            running.episodic_return += float(step.reward[index])
            if over[index]:
                end = "terminated" if step.terminated[index] else "truncated"
                yield self._end_episode(index, running, end, step.outcomes.get(index))

    @contextlib.contextmanager
    def _playing(self) -> Iterator[None]:
        """Measure what the environments do; name the one that fails, where that can be told."""
        with self._timer("emulate"):
            try:
                yield
            except EnvFailedError as error:
                raise RunFailedError(str(error)) from error
            except Exception as error:  # somebody else's environment: whatever it raises
                index = getattr(self._env, "current", None)
                name = f"The environment {self._config.env.id}"
                if index is not None:
                    running = self._running[index]
                    name += (
                        f", number {index}, failed in the episode of seed {running.seed} after "
                        f"{len(running.actions)} steps"
                    )
                else:
                    name += " failed"
                raise RunFailedError(f"{name}: {error!r}.") from error

    def _take_faults(self) -> list[EnvFault]:
        """Return which environments failed and were made anew since it was last asked."""
        return self._env.take_faults() if isinstance(self._env, TellsFaults) else []

    def _note_faults(self, faults: Sequence[EnvFault]) -> Iterator[Event]:
        """Count environments that failed, and tell of them."""
        for fault in faults:
            self._env_restarts += 1
            yield EnvRestarted(self._clock(), self._describe(fault))

    def _describe(self, fault: EnvFault) -> str:
        """Return what failed, and what becomes of it."""
        what = fault.sentence(self._config.env.id)
        if fault.env_index is None:
            return f"{what} Its environments are back where they were."
        running = self._running[fault.env_index]
        then = "The episode is cut off there" if running.active else "Another seed is tried"
        return f"{what} {then}, and the environment made anew."

    def _learn(self) -> None:
        with self._timer("learn"):
            self._add_metrics(self._agent.learn())

    def _settle(self) -> None:
        with self._timer("learn"):
            self._add_metrics(self._agent.settle())

    def _end_episode(
        self,
        index: int,
        running: _Running,
        end: str,
        outcome: Outcome | None = None,
        *,
        failed: bool = False,
    ) -> EpisodeEnded:
        clock = self._clock()
        episode = Episode(
            self._episodes,
            clock.step,
            clock.frames,
            index,
            running.seed,
            running.episodic_return,
            len(running.actions),
            end,
            clock.wall_time_s,
        )
        self._episodes += 1
        if not failed:  # else neither its return nor its end says anything of the policy
            self._recent.append(running.episodic_return)
            self._recent_lengths.append(len(running.actions))
            self._recent_successes.append(None if outcome is None else outcome.success)
            self._look_for_lateness()
        running.active = False
        return EpisodeEnded(clock, episode, np.array(running.actions, dtype=np.int64))

    def _look_for_lateness(self) -> None:
        """Begin to evaluate at another period once training's return is high enough."""
        config = self._config.evaluation
        if not config.period_steps or config.late_return is None or self._is_late:
            return
        if len(self._recent) < RECENT_EPISODES or np.mean(self._recent) < config.late_return:
            return
        self._is_late = True
        if self._step < self._next_evaluation:  # one that is due now is played
            self._next_evaluation = _next_multiple(self._step, self._evaluation_period)

    @property
    def _evaluation_period(self) -> int:
        config = self._config.evaluation
        late = config.late_period_steps
        return late if self._is_late and late is not None else config.period_steps

    def _begin_episodes(self) -> Iterator[Event]:
        """Reset every environment that is in no episode, unless the agent lets it wait.

        A seed whose reset fails is passed over.
        """
        idle = np.array([not running.active for running in self._running])
        waiting = self._agent.waiting() if idle.any() else None
        mask = idle if waiting is None else idle & ~waiting
        while mask.any():
            indexes = np.flatnonzero(mask).tolist()
            for index in indexes:
                running = self._running[index]
                running.seed = seeding.episode_seed(
                    self._config.seed, "training", index, running.begun
                )
                running.begun += 1
                running.actions = []
                running.episodic_return = 0.0
            with self._playing():
                self._observation = self._env.reset(
                    mask, [self._running[index].seed for index in indexes]
                )
            faults = self._take_faults()
            yield from self._note_faults(faults)
            failed = {fault.env_index for fault in faults}
            for index in indexes:
                self._running[index].active = index not in failed
            mask[indexes] = [index in failed for index in indexes]

    def _due(self, *, last: bool) -> Iterator[Event]:
        """Evaluate and save where it is time to; a checkpoint includes the evaluation before it."""
        period = self._evaluation_period
        is_best = False
        time_to_evaluate = period > 0 and (last or self._step >= self._next_evaluation)
        if last or time_to_evaluate or self._step >= self._next_checkpoint:
            self._settle()
            self._mean_metrics()  # raises: what has diverged is neither judged nor saved
        if time_to_evaluate and self._evaluated_at != self._step:
            with self._timer("evaluate"):
                evaluated = self._evaluate()
            if isinstance(self._eval_env, TellsFaults):
                for fault in self._eval_env.take_faults():
                    self._env_restarts += 1
                    what = fault.sentence(f"{self._config.env.id} in the evaluation")
                    yield EnvRestarted(self._clock(), f"{what} It is back where it was.")
            self._evaluated_at = self._step
            self._next_evaluation = _next_multiple(self._step, period)
            is_best = evaluated.is_best
            yield evaluated
            last = last or evaluated.is_enough
        period_is_over = self._step >= self._next_checkpoint
        if period_is_over:
            self._next_checkpoint = _next_multiple(self._step, self._config.checkpoint.period_steps)
        if last or period_is_over or is_best:
            reason: Literal["end", "period"] = "end" if last else "period"
            yield CheckpointDue(self._clock(), reason, is_best, self.save)

    def _evaluate(self) -> Evaluated:
        config = self._config.evaluation
        if self._eval_env is None:
            number = num_eval_envs(config.episodes, self._config.env.num_envs)
            self._eval_env = self._make_eval_env(number)
        policy = self._agent.policy()
        episodes = self._play(policy, 0, config.episodes)
        if config.stop_episodes is not None:
            # Few episodes may all go well by chance. More take time, so they are played only as
            # long as they may end the run.
            while _are_enough(episodes, config) and len(episodes) < config.stop_episodes:
                more = min(config.episodes, config.stop_episodes - len(episodes))
                episodes += self._play(policy, len(episodes), more)
        mean, rate = _mean_over(episodes), success_rate_of(episodes)
        # Of equals, the one that saw more. Where nothing is told of success, nothing was completed.
        is_best = self._best is None or (
            (rate or 0.0, mean) >= (self._best_success or 0.0, self._best)
        )
        if is_best:
            self._best, self._best_success = mean, rate
        self._enough = _are_enough(episodes, config)
        is_lacking = config.stop_success is not None and rate is None
        warning = _NO_SUCCESS if is_lacking and self._evaluated_at < 0 else None
        return Evaluated(
            self._clock(), episodes, policy, is_best, self._evaluated_at, self._enough, warning
        )

    def _play(self, policy: Policy, first: int, number: int) -> tuple[PlayedEpisode, ...]:
        """Play `number` of the episodes that choose the best checkpoint, from `first` on."""
        assert self._eval_env is not None
        config = self._config.evaluation
        return play_episodes(
            policy,
            self._eval_env,
            [
                seeding.episode_seed(self._config.seed, "selection", index)
                for index in range(first, first + number)
            ],
            epsilon=config.epsilon,
            sample=config.sample,
            should_stop=self._should_stop,
        )

    def _clock(self) -> Clock:
        elapsed = self._wall_time_before + time.monotonic() - self._began
        return Clock(self._step, self._step * self._frame_skip, elapsed)

    def _mean_return(self) -> float | None:
        return float(np.mean(self._recent)) if self._recent else None

    def _add_metrics(self, metrics: Metrics) -> None:
        """Sum up metrics without reading them, since reading would wait for the device."""
        for name, value in metrics.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)

    def _log(self) -> Iterator[Event]:
        """Yield a line of metrics, unless there is one of this step already."""
        clock = self._clock()
        metrics = self._mean_metrics()
        if clock.step == self._logged[0]:
            return
        self._sums = {}
        before_step, before_s = self._logged
        metrics["charts/SPS"] = (clock.step - before_step) / max(clock.wall_time_s - before_s, 1e-9)
        if self._recent:
            metrics["charts/episodic_return"] = float(np.mean(self._recent))
            metrics["charts/episodic_length"] = float(np.mean(self._recent_lengths))
        rate = success_rate(self._recent_successes)
        if rate is not None:
            metrics["charts/success_rate"] = rate
        if self._env_restarts:
            metrics["charts/env_restarts"] = float(self._env_restarts)
        self._logged = (clock.step, clock.wall_time_s)
        yield Logged(clock, metrics | self._agent.gauges())

    def _mean_metrics(self) -> dict[str, float]:
        """Return the means since the last line of metrics.

        Raises:
            RunFailedError: one of them is not finite, or an update was not.
        """
        fault = self._agent.fault()
        if fault is not None:
            raise DivergedError(fault, self._step)
        metrics = {name: float(total) / count for name, (total, count) in self._sums.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise RunFailedError(
                    f"{name} is no longer a finite number at step {self._step}: learning has "
                    "diverged. Try a lower --agent.learning-rate or --agent.max-grad-norm."
                )
        return metrics

    def save(self, directory: Path, experience: bool) -> None:
        """Write everything that the rest of the run depends on to an empty directory."""
        (directory / "agent").mkdir()
        self._agent.save(directory / "agent", experience=experience)
        lengths = [len(running.actions) for running in self._running]
        actions = [action for running in self._running for action in running.actions]
        save_array(directory / "actions.npy", np.array(actions, dtype=np.int64))
        save_array(directory / "observation.npy", self._observation)
        state = {
            "step": self._step,
            "episodes": self._episodes,
            "begun": [running.begun for running in self._running],
            "seeds": [running.seed for running in self._running],
            "active": [running.active for running in self._running],
            "returns": [running.episodic_return for running in self._running],
            "lengths": lengths,
            "recent": list(self._recent),
            "recent_lengths": list(self._recent_lengths),
            "recent_successes": list(self._recent_successes),
            "best": self._best,
            "best_success": self._best_success,
            "enough": self._enough,
            "is_late": self._is_late,
            "evaluated_at": self._evaluated_at,
            "next_evaluation": self._next_evaluation,
            "next_checkpoint": self._next_checkpoint,
            "wall_time_s": self._clock().wall_time_s,
            "experience": experience,
            "env_restarts": self._env_restarts,
        }
        text = json.dumps(state, indent=1) + "\n"
        (directory / "runner.json").write_text(text, encoding="utf-8")

    def load(self, directory: Path, *, reproducible: bool = True) -> str | None:
        """Go back to what `save` wrote, in the middle of every environment's episode.

        Args:
            directory: that was written to.
            reproducible: whether episodes can be rebuilt from seed and actions; where they cannot,
                the environments begin new ones.

        Returns:
            None if the run goes on exactly as it would have, else why it cannot.
        """
        state = _read_state(directory / "runner.json", len(self._running))
        self._agent.load(directory / "agent")
        self._step = state["step"]
        self._episodes = state["episodes"]
        self._recent.extend(state["recent"])
        self._recent_lengths.extend(state["recent_lengths"])
        self._recent_successes.extend(state["recent_successes"])
        self._best = state["best"]
        self._best_success = state["best_success"]
        self._enough = _is_reached(state, self._config.evaluation)
        self._is_late = state["is_late"]
        self._evaluated_at = state["evaluated_at"]
        self._next_evaluation = state["next_evaluation"]
        self._next_checkpoint = state["next_checkpoint"]
        self._wall_time_before = state["wall_time_s"]
        self._env_restarts = state["env_restarts"]
        for index, running in enumerate(self._running):
            running.begun = state["begun"][index]
        if not state["experience"]:
            self._agent.interrupt()
            return "stored experience was not saved with the checkpoint"
        if not reproducible:
            self._agent.interrupt()
            return "the environment does not reproduce itself from a seed"
        ends = np.cumsum(state["lengths"])
        played = load_array(directory / "actions.npy", np.int64, (int(ends[-1]),))
        actions = np.split(played, ends[:-1])
        active = np.array(state["active"], dtype=np.bool_)
        try:
            observation = self._env.restore(state["seeds"], actions)
        except Exception as error:  # somebody else's environment: whatever it raises
            self._agent.interrupt()
            return f"the environments did not come back to where they were: {error!r}"
        saved = load_array(directory / "observation.npy", observation.dtype, observation.shape)
        is_number = saved.dtype.kind == "f"  # one that is none is where it was, too
        if not np.array_equal(observation[active], saved[active], equal_nan=is_number):
            self._agent.interrupt()
            return "the environments did not come back to where they were"
        self._observation = observation
        for index, running in enumerate(self._running):
            running.seed = state["seeds"][index]
            running.actions = actions[index].tolist()
            running.episodic_return = state["returns"][index]
            running.active = state["active"][index]
        return None


def has_reached(directory: Path, config: EvaluationConfig) -> bool:
    """Return whether an evaluation had reached its goal when `save` wrote to a directory."""
    try:
        return _is_reached(read_json(directory / "runner.json"), config)
    except (OSError, ValueError):  # `load` says what is wrong with it
        return False


def _is_reached(state: Mapping[str, Any], config: EvaluationConfig) -> bool:
    """Return whether an evaluation had reached its goal, from what `save` has written."""
    if config.stop_return is None and config.stop_success is None:
        return False
    if "enough" in state:
        return state["enough"] is True
    # Older checkpoints, of runs that could reach a return only.
    best, goal = state.get("best"), config.stop_return
    return goal is not None and isinstance(best, int | float) and best >= goal


def _read_state(path: Path, num_envs: int) -> dict[str, Any]:
    """Return what `save` has written as JSON.

    Raises:
        OSError: it cannot be read.
        ValueError: something else stands in it.
    """
    state = read_json(path)
    # Absent from older checkpoints.
    state.setdefault("is_late", False)
    state.setdefault("recent_successes", [])
    state.setdefault("best_success", None)
    state.setdefault("env_restarts", 0)
    for key, fits in _STATE.items():
        if key not in state or not fits(state[key]):
            raise ValueError(f"runner.json: {key} is {state.get(key)!r:.80}")
    for key in ("begun", "seeds", "active", "returns", "lengths"):
        if len(state[key]) != num_envs:
            raise ValueError(f"runner.json: {key} is of {len(state[key])} environments")
    return state


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 60


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _all(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, list) and all(fits(value) for value in values)


_STATE: dict[str, Callable[[Any], bool]] = {
    "step": _is_count,
    "episodes": _is_count,
    "begun": _all(_is_count),
    "seeds": _all(_is_count),
    "active": _all(lambda value: isinstance(value, bool)),
    "returns": _all(_is_number),
    "lengths": _all(_is_count),
    "recent": _all(_is_number),
    "recent_lengths": _all(_is_count),
    "recent_successes": _all(lambda value: value is None or isinstance(value, bool)),
    "best_success": lambda value: value is None or _is_number(value),
    "best": lambda value: value is None or _is_number(value),
    "is_late": lambda value: isinstance(value, bool),
    "evaluated_at": lambda value: value == -1 or _is_count(value),
    "next_evaluation": _is_count,
    "next_checkpoint": _is_count,
    "wall_time_s": _is_number,
    "experience": lambda value: isinstance(value, bool),
    "env_restarts": _is_count,
}


def _mean_over(episodes: Sequence[PlayedEpisode]) -> float:
    return float(np.mean([episode.episodic_return for episode in episodes]))


def _are_enough(episodes: Sequence[PlayedEpisode], config: EvaluationConfig) -> bool:
    """Return whether episodes reach all that the run is to reach; never if that is nothing."""
    if config.stop_return is None and config.stop_success is None:
        return False
    if config.stop_return is not None and not _mean_over(episodes) >= config.stop_return:
        return False
    return config.stop_success is None or (success_rate_of(episodes) or 0) >= config.stop_success


def _next_multiple(step: int, period: int) -> int:
    """Return the smallest multiple of `period` above `step`."""
    return (step // period + 1) * period
