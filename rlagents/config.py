"""A run's configuration: tables put together, read from TOML, overridden, checked and explained.

Whether a value comes from a file, the command line or Python, it passes the same checks, and a
refusal names where it stands, what was expected, what was got and the nearest right name.
"""

from __future__ import annotations

import importlib.resources
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from rlagents.agents import find_agent
from rlagents.envs import EnvConfig
from rlagents.errors import UsageError, did_you_mean, nearest_name
from rlagents.files import read_text
from rlagents.tables import Count, Int, Probability, Steps, Table, describe_type

# Bytes; the recipes have some thousand. Longer ones could keep the parser busy for minutes.
LARGEST_CONFIG = 1 << 16
_LONGEST_ID = 4096  # characters, of a path
_LONGEST_SHOWN = 100  # characters of a value, in a message
DEFAULT_AGENT = "dqn"
MAX_SCALE = 16  # of recorded pixels
_OPTIONAL_TABLES = ("network", "replay")  # an agent may have none
_TABLES = ("env", "agent", *_OPTIONAL_TABLES, "evaluation", "recording", "checkpoint", "logging")


class EvaluationConfig(Table):
    """`[evaluation]`: how the agent is judged while it learns, and by `rlagents evaluate`."""

    period_steps: Annotated[Int, Field(ge=0, le=10**12)] = 50_000
    """Agent steps between evaluations, and one at the end; 0 for none at all."""
    episodes: Annotated[Int, Field(ge=1, le=100_000)] = 10
    """Episodes of an evaluation."""
    epsilon: Probability = 0.0
    """Chance of a random action in evaluation."""
    sample: bool = False
    """Draw actions from a policy's probabilities, where otherwise the most probable is played."""
    stop_return: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """Finish once the mean return of an evaluation is this or more; else after all steps."""
    stop_success: Annotated[float, Field(gt=0, le=1)] | None = None
    """Finish once this share of an evaluation's episodes is completed, where the environment tells;
    beside stop_return, both must be reached in one evaluation."""
    stop_episodes: Count | None = None
    """Once an evaluation reaches that, play on with the same weights, up to so many episodes in
    all, and finish only if all of them together reach it."""
    late_return: Annotated[float, Field(ge=-1e12, le=1e12)] | None = None
    """Once the mean return of the last 100 training episodes is this or more, evaluate every
    late_period_steps instead, for good; independent of [agent] late_return."""
    late_period_steps: Count | None = None
    """Agent steps between evaluations then."""


class RecordingConfig(Table):
    """`[recording]`: videos of evaluations."""

    enabled: bool = True
    """Record videos at evaluations."""
    period_steps: Count | None = None
    """Record the first evaluation at or after each multiple of so many agent steps, and the run's
    first and last; all evaluations if left out."""
    episodes: Count = 1
    """Episodes of each evaluation that are recorded, from its first on."""
    scale: Annotated[Int, Field(ge=1, le=MAX_SCALE)] = 2
    """Each pixel becomes a square of this many pixels a side."""
    caption: bool = False
    """Show a strip below the picture with return so far, step, action and its value."""


class CheckpointConfig(Table):
    """`[checkpoint]`: what can be gone back to."""

    period_steps: Steps = 100_000
    """Agent steps between checkpoints; there is one at each best evaluation and at the end, too."""
    keep: Count = 3
    """The newest checkpoints that are kept; the best one is kept too, however old."""
    replay: Literal["always", "on-exit", "never"] = "on-exit"
    """When stored experience is saved too, so that resuming is exact; on-exit keeps the replay of
    the newest only."""


class LoggingConfig(Table):
    """`[logging]`: how often numbers are written down."""

    period_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Seconds between lines of metrics.jsonl."""


class RunConfig(Table):
    """Everything that decides what a run does.

    `for_agent` returns the class that also holds the tables of an agent.
    """

    total_steps: Steps = 100_000
    """Agent steps to train for, over all environments."""
    seed: Annotated[Int, Field(ge=0, lt=2**31)] = 1
    """Same seed, same run; other seed, other run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks are computed; auto takes a GPU if there is one."""
    env: EnvConfig
    agent: Table
    network: Table | None = None
    replay: Table | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    recording: RecordingConfig = RecordingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()

    @property
    def agent_name(self) -> str:
        """Return the name by which the agent is registered."""
        return str(getattr(self.agent, "name"))  # noqa: B009 - every agent table has been given one

    @classmethod
    def for_agent(cls, name: str) -> type[RunConfig]:
        """Return the class of configs whose `[agent]` and further tables are those of an agent.

        Raises:
            UsageError: there is no agent of that name.
        """
        agent = find_agent(name)
        table = agent.Config
        if "name" not in table.model_fields:
            literal: Any = Literal[name]
            table = create_model(table.__name__, __base__=table, name=(literal, name))
        required = any(field.is_required() for field in table.model_fields.values())
        fields: dict[str, Any] = {"agent": (table, ... if required else table())}
        for other, attribute in (("network", "NetworkConfig"), ("replay", "ReplayConfig")):
            model = getattr(agent, attribute, None)
            fields[other] = (None, None) if model is None else (model, model())
        return create_model("RunConfig", __base__=cls, **fields)


@dataclass(frozen=True)
class Option:
    """One key of a config, for help texts."""

    name: str  # "agent.learning_rate"
    default: Any
    takes: str
    help: str

    @property
    def flag(self) -> str:
        """Return it as the command line has it: `--agent.learning-rate`."""
        return option_flag(self.name)


def option_flag(name: str) -> str:
    """Return a key such as `agent.learning_rate` as an option of the command line."""
    return "--" + name.replace("_", "-")


def builtin_configs() -> dict[str, str]:
    """Return the recipes that come with the package: name and the first line's comment."""
    found = {}
    folder = importlib.resources.files("rlagents.configs")
    for file in folder.iterdir():
        if file.name.endswith(".toml"):
            first = file.read_text(encoding="utf-8").partition("\n")[0]
            found[file.name.removesuffix(".toml")] = first.removeprefix("#").strip()
    return dict(sorted(found.items()))


def read_config(name: str | Path) -> tuple[dict[str, Any], str]:
    """Return the tables of a recipe's name or a TOML file's path, and what to call it.

    Raises:
        UsageError: there is none, or it is not TOML.
    """
    path = Path(name)
    if str(name) in builtin_configs():
        text = (importlib.resources.files("rlagents.configs") / f"{name}.toml").read_text("utf-8")
    elif _is_file(path):
        try:
            text = read_text(path, LARGEST_CONFIG)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read as a config: {error}.") from error
    else:
        known = builtin_configs()
        raise UsageError(
            f"There is no config {str(name)!r}{did_you_mean(str(name), known)} It must be one of "
            f"{', '.join(known)}, or the path of a TOML file."
        )
    try:
        return tomllib.loads(text), path.stem
    except RecursionError:
        raise UsageError(f"{name} is not valid TOML: nested too deeply.") from None
    except ValueError as error:  # also a number of more digits than Python reads
        raise UsageError(f"{name} is not valid TOML: {error}.") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no path at all: too long, or with a zero byte in it
        return False


def parse_value(text: str) -> Any:
    """Return what an option's text means: a TOML value, else a number or the text itself.

    TOML has no numbers such as `.99` and `1.`, which people write all the same.
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        try:
            return float(text) if "." in text else text
        except ValueError:
            return text
    return parsed["value"] if set(parsed) == {"value"} else text


def parse_option_values(overrides: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of options as TOML would have them; a key that takes text gets the text."""
    return {
        key: text if key in _TEXT_KEYS and not _is_list(key, text) else parse_value(text)
        for key, text in overrides.items()
    }


def _is_list(key: str, text: str) -> bool:
    """Tell whether the text of a key that takes text or a list is a list."""
    return key == "env.action_set" and text.lstrip().startswith("[")


# Text as it is: a game called "1942" needs no quotes on the command line.
_TEXT_KEYS = ("env.id", "env.action_set", "env.reward", "agent.name", "network.torso", "device")


def build_config(tables: Mapping[str, Any], overrides: Mapping[str, Any], source: str) -> RunConfig:
    """Return the checked config of a file's tables and overrides on top.

    Args:
        tables: what the TOML file says.
        overrides: by dotted key, `{"agent.learning_rate": 1e-4}`; underscores or hyphens.
        source: what to call the file in an error.

    Raises:
        UsageError: some key or value is refused.
    """
    merged: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in tables.items()
    }
    overridden = set()
    for table in set(merged) & set(_TABLES):
        if not isinstance(merged[table], dict):
            if merged[table] is None and table in _OPTIONAL_TABLES:
                continue
            raise UsageError(
                f"{source}: {table}: expected a table, [{table}] with its keys below it, got "
                f"{_shown(merged[table])}."
            )
    for given, value in overrides.items():
        key = given.replace("-", "_")
        table, dot, rest = key.partition(".")
        if dot and not isinstance(merged.get(table), dict):
            merged[table] = {}
        if dot:
            merged[table][rest] = value
        else:
            merged[key] = value
        overridden.add(key)
    name = merged.get("agent", {}).get("name", DEFAULT_AGENT)
    name = name[:_LONGEST_SHOWN] if isinstance(name, str) else _shown(name)
    agent = find_agent(name)
    model = RunConfig.for_agent(name)
    try:
        config = model.model_validate(merged)
    except pydantic.ValidationError as error:
        lines = [
            _explain(dict(problem), model, source, overridden, name)
            for problem in error.errors()[:5]
        ]
        raise UsageError("\n".join(lines)) from None
    if len(config.env.id) > _LONGEST_ID:
        raise UsageError(f"{source}: [env] id: expected a name, got {_shown(config.env.id)}.")
    _check_evaluation(config.evaluation)
    if hasattr(agent, "check"):
        agent.check(config, num_envs=config.env.num_envs)
    return config


def check_sample(config: RunConfig) -> None:
    """Refuse to draw actions where an agent has no probabilities; older runs may have asked for it.

    Raises:
        UsageError: it is asked for in vain.
    """
    agent = find_agent(config.agent_name)
    if config.evaluation.sample and getattr(agent, "value_kind", None) == "action values":
        raise no_sample(config.agent_name)


def no_sample(agent: str) -> UsageError:
    """Return what is said where an agent without probabilities is to draw actions from them."""
    return UsageError(
        f"[evaluation] sample: {agent} plays the action of the highest value and has no "
        "probabilities to draw from; leave it out, or set [evaluation] epsilon."
    )


def _check_evaluation(table: EvaluationConfig) -> None:
    """Refuse keys of `[evaluation]` that do nothing without another."""
    no_goal = table.stop_return is None and table.stop_success is None
    if table.stop_episodes is not None and no_goal:
        raise UsageError(
            "[evaluation] stop_episodes: needs stop_return or stop_success beside it, what is to "
            'be reached; or set it to "none" too.'
        )
    for key, needed, what in (
        ("late_return", "late_period_steps", "the agent steps between evaluations from then on"),
        ("late_period_steps", "late_return", "the mean return from which on it holds"),
    ):
        if getattr(table, key) is not None and getattr(table, needed) is None:
            raise UsageError(
                f'[evaluation] {key}: needs {needed} beside it, {what}; or set it to "none" too.'
            )


def options(model: type[RunConfig], values: Mapping[str, Any] | None = None) -> Iterator[Option]:
    """Yield every key of a config's class, with `values` (a file's tables) as defaults."""
    values = values or {}
    for name, field in model.model_fields.items():
        table = _table_of(field)
        if table is None:
            if field.annotation is not type(None):
                default = values.get(name, field.get_default(call_default_factory=True))
                yield Option(name, default, describe_type(field), field.description or "")
            continue
        given = values.get(name)
        given = given if isinstance(given, Mapping) else {}
        for key, inner in table.model_fields.items():
            default = given.get(key, inner.get_default(call_default_factory=True))
            if inner.is_required() and key not in given:
                default = "required"
            text = " ".join((inner.description or "").split())
            yield Option(f"{name}.{key}", default, describe_type(inner), text)


def _table_of(field: FieldInfo) -> type[Table] | None:
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    return None


def _explain(
    problem: dict[str, Any],
    model: type[RunConfig],
    source: str,
    overridden: set[str],
    agent_name: str,
) -> str:
    location = [str(part) for part in problem["loc"]]
    known = {option.name: option for option in options(model)}
    dotted = ".".join(location[:2])
    key = ".".join(location[:2]) if dotted in known or len(location) > 1 else location[0]
    # A whole table is refused under the name of the option that brought it in.
    option = next((o for o in overridden if o == key or o.startswith(f"{key}.")), None)
    from_option = option is not None
    where = option_flag(option) if option is not None else f"{source}: {_in_file(key)}"
    got = problem["input"]
    if problem["type"] == "extra_forbidden" or (key in ("network", "replay") and got is not None):
        return f"{where}: {_unknown(key, known, model, from_option, agent_name)}"
    if problem["type"] == "missing":
        key = "env.id" if key == "env" else key
        return (
            f"{source}: {_in_file(key)} is missing; give it in the file or as {option_flag(key)}."
        )
    if key not in known:
        return f"{where}: expected a table, got {_shown(got)}."
    takes = known[key].takes
    if " | " in takes and isinstance(got, str):
        choices = takes.split(" | ")
        return (
            f"{where}: expected {takes}, got {got[:_LONGEST_SHOWN]!r}"
            f"{did_you_mean(got[:_LONGEST_SHOWN], choices)}"
        )
    inside_list = len(location) > 2 or problem["type"] in ("too_short", "too_long")
    detail = f" ({problem['msg']})" if inside_list else ""
    takes_list = takes.removeprefix("none, or ").startswith("list of")
    if takes_list and len(location) == 2 and type(got) in (int, float):
        detail = f"; lists stand in brackets, [{got}]"
    return f"{where}: expected {takes}, got {_shown(got)}{detail}."


def _unknown(
    key: str, known: Mapping[str, Option], model: type[RunConfig], from_option: bool, agent: str
) -> str:
    table, _, name = key.partition(".")
    if table in ("network", "replay") and _table_of(model.model_fields[table]) is None:
        return f"the agent {agent!r} has no [{table}] table; leave it out."
    spell = option_flag if from_option else _in_file
    same_table = [other for other in known if other.startswith(f"{table}.")]
    elsewhere = [other for other in known if other.split(".")[-1] == (name or table)]
    nearest = (
        elsewhere[0]
        if elsewhere
        else nearest_name(name or table, [k.partition(".")[2] for k in same_table])
        or nearest_name(table, {k.split(".")[0] for k in known if not same_table})
    )
    if nearest is not None and not elsewhere and same_table:
        nearest = f"{table}.{nearest}"
    if nearest is not None:
        return f"unknown key; did you mean {spell(nearest)}?"
    names = ", ".join(other.split(".")[-1] for other in same_table) or ", ".join(
        dict.fromkeys(other.split(".")[0] for other in known)
    )
    return f"unknown key; known here: {names}."


def _in_file(key: str) -> str:
    table, dot, name = (part[:_LONGEST_SHOWN] for part in key.partition("."))
    return f"[{table}] {name}" if dot else table


def _shown(value: Any) -> str:
    """Return a value as a message shows it: as JSON, and no more of it than can be read."""
    try:
        text = json.dumps(value, default=str)
    except (RecursionError, TypeError, ValueError):  # nested too deeply, or in itself; odd keys
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
