"""Configs: what is read, what is refused, and whether a refusal says what to do."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from rlagents.agents import find_agent
from rlagents.config import (
    RunConfig,
    build_config,
    builtin_configs,
    option_flag,
    options,
    parse_option_values,
    parse_value,
    read_config,
)
from rlagents.envs import find_env, resolve_env_config
from rlagents.errors import UsageError
from rlagents.replay import ReplayConfig
from rlagents.tables import Probability, Table, describe_type

AGENTS = ("dqn", "ppo", "reinforce")
MINIMAL: dict[str, Any] = {"env": {"id": "cartpole"}}


def build(agent: str = "dqn", **overrides: Any) -> RunConfig:
    keys = {name.replace("__", "."): value for name, value in overrides.items()}
    return build_config(MINIMAL, {"agent.name": agent, **keys}, "test.toml")


def refusal(tables: dict[str, Any], overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        build_config(tables, overrides or {}, "test.toml")
    return str(caught.value)


def tables_with(key: str, value: Any, agent: str = "dqn") -> dict[str, Any]:
    """The tables of a file that says `value` for a dotted key."""
    tables: dict[str, Any] = {"env": {"id": "cartpole"}, "agent": {"name": agent}}
    table, dot, name = key.partition(".")
    if dot:
        tables.setdefault(table, {})[name] = value
    else:
        tables[table] = value
    return tables


def in_file(key: str) -> str:
    table, dot, name = key.partition(".")
    return f"[{table}] {name}" if dot else table


# --- recipes ----------------------------------------


def test_the_promised_recipes_are_there() -> None:
    promised = {
        "atari-dqn-2015",
        "cartpole-dqn",
        "cartpole-ppo",
        "cartpole-reinforce",
        "pong-dqn",
        "pong-ppo",
        "pong-reinforce",
    }
    assert promised <= set(builtin_configs())


@pytest.mark.parametrize("name", builtin_configs())
def test_a_recipe_loads_builds_and_resolves(name: str) -> None:
    tables, recipe = read_config(name)
    config = build_config(tables, {}, recipe)
    assert recipe == name
    assert builtin_configs()[name]
    env_config = resolve_env_config(config.env, find_env(config.env.id))
    assert env_config.frame_skip is not None
    assert env_config.action_set is not None
    assert find_agent(config.agent_name).Config.model_fields["name"].default == config.agent_name
    resolved = config.model_copy(update={"env": env_config})
    dumped = json.loads(json.dumps(resolved.model_dump(mode="json")))
    assert build_config(dumped, {}, "again").model_dump() == resolved.model_dump()


def test_a_recipes_values_reach_the_config() -> None:
    tables, recipe = read_config("cartpole-dqn")
    config = build_config(tables, {}, recipe)
    for table, values in tables.items():
        if not isinstance(values, dict):
            assert getattr(config, table) == values
            continue
        for key, value in values.items():
            assert getattr(getattr(config, table), key) == value


def test_the_recipe_of_2015_is_extended_data_table_1() -> None:
    tables, recipe = read_config("atari-dqn-2015")
    for game in ("pong", "atari/breakout"):
        config: Any = build_config(tables, {"env.id": game}, recipe)
        env = resolve_env_config(config.env, find_env(game))
        assert (env.frame_skip, env.frame_stack, env.frame_size, env.noop_max) == (4, 4, 84, 30)
        assert (env.action_set, env.sticky_probability) == ("minimal", 0.0)
    agent = config.agent
    assert agent.max_grad_norm == 0  # the paper does not shorten gradients
    assert config.replay.batch_size == 32
    assert config.replay.capacity == 1_000_000
    assert agent.target_period_steps == 10_000 * agent.update_period_steps
    assert agent.rmsprop_epsilon == 0.01 / config.replay.batch_size**2
    assert (agent.epsilon_start, agent.epsilon_end, config.evaluation.epsilon) == (1.0, 0.1, 0.05)
    # "trained for a total of 50 million frames (that is, around 38 days of game experience)"
    days = config.total_steps * env.frame_skip / 60 / 60 / 60 / 24
    assert days == pytest.approx(38, abs=1)


# --- options ----------------------------------------


@pytest.mark.parametrize("agent", AGENTS)
def test_options_cover_every_field(agent: str) -> None:
    expected = set()
    for name, value in build(agent):
        if isinstance(value, Table):
            expected |= {f"{name}.{key}" for key in type(value).model_fields}
        elif not (name in ("network", "replay") and value is None):
            expected.add(name)
    found = {option.name: option for option in options(RunConfig.for_agent(agent))}
    assert set(found) == expected
    for name, option in found.items():
        assert option.help, name
        assert option.takes, name
        assert not option.takes.startswith(("typing", "<", "Annotated")), name
        assert option.flag == "--" + name.replace("_", "-")


def test_options_show_a_files_values_as_defaults() -> None:
    tables, _ = read_config("pong-dqn")
    shown = {o.name: o.default for o in options(RunConfig.for_agent("dqn"), tables)}
    assert shown["agent.learning_rate"] == tables["agent"]["learning_rate"]
    assert shown["env.id"] == "pong"
    assert shown["total_steps"] == tables["total_steps"]
    assert (
        shown["checkpoint.keep"]
        == RunConfig.for_agent("dqn").model_fields["checkpoint"].get_default().keep
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("50_000", 50_000),
        ("1e6", 1e6),
        ("2.5e-4", 2.5e-4),
        (".99", 0.99),
        ("-.5e-3", -0.0005),
        ("1.", 1.0),
        ("1.2.3", "1.2.3"),
        ("007", "007"),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("[64, 64]", [64, 64]),
        ("[]", []),
        ("{a = 1, b = 'x y'}", {"a": 1, "b": "x y"}),
        ('"quoted"', "quoted"),
        ("two words", "two words"),
        ("nature-cnn", "nature-cnn"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
        ("path/to/file.py:make", "path/to/file.py:make"),
    ],
)
def test_an_options_text_means_what_toml_means(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_text_options_need_no_quotes() -> None:
    parsed = parse_option_values({"env.id": "1942", "env.num_envs": "4", "env.action_set": "1"})
    assert parsed == {"env.id": "1942", "env.num_envs": 4, "env.action_set": "1"}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30))
def test_no_text_of_an_option_is_a_crash(text: str) -> None:
    value = parse_value(text)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        assert build(agent__learning_rate=value).agent.learning_rate == value  # type: ignore[attr-defined]
    else:
        assert refusal(MINIMAL, {"agent.learning_rate": value}).startswith("--agent.learning-rate")


def test_hyphens_are_underscores() -> None:
    config = build_config(MINIMAL, {"agent.learning-rate": 0.5, "total-steps": 7}, "test.toml")
    assert config.agent.learning_rate == 0.5  # type: ignore[attr-defined]
    assert config.total_steps == 7


def test_overrides_leave_the_tables_as_they_were() -> None:
    tables = {"env": {"id": "cartpole", "num_envs": 2}}
    build_config(tables, {"env.num_envs": 3, "seed": 5}, "test.toml")
    assert tables == {"env": {"id": "cartpole", "num_envs": 2}}


def test_none_leaves_out_what_a_recipe_sets() -> None:
    tables, _ = read_config("pong-dqn")
    assert tables["agent"]["late_return"] is not None
    late = [key for key in tables["agent"] if key.startswith("late_")]
    words = parse_option_values({f"agent.{key}": "none" for key in late})
    config: Any = build_config(tables, words, "test.toml")
    assert all(getattr(config.agent, key) is None for key in late)


def test_none_leaves_out_the_names_that_a_recipe_chooses() -> None:
    tables, _ = read_config("mario-ppo")
    assert {"action_set", "reward"} <= tables["env"].keys()
    words = parse_option_values({"env.action_set": "none", "env.reward": "none"})
    config = build_config(tables, words, "test.toml")
    assert config.env.action_set is None
    assert config.env.reward is None


def test_none_is_the_text_where_it_is_a_choice() -> None:
    words = parse_option_values({"replay.compression": "none"})
    config: Any = build_config(MINIMAL, words, "test.toml")
    assert config.replay.compression == "none"


def test_none_is_refused_where_a_value_is_needed() -> None:
    message = refusal(MINIMAL, {"agent.gamma": "none"})
    assert message == '--agent.gamma: expected number, 0 or more, at most 1, got "none".'


def test_what_needs_another_key_says_how_to_leave_both_out() -> None:
    tables, _ = read_config("pong-dqn")
    message = refusal(tables, {"agent.late_return": "none"})
    assert message.startswith("[agent] late_learning_rate: needs late_return")
    assert message.endswith('or set it to "none" too.')
    tables, _ = read_config("cartpole-dqn")
    message = refusal(tables, {"evaluation.stop_return": "none"})
    assert message.startswith("[evaluation] stop_episodes: needs stop_return")
    assert message.endswith('or set it to "none" too.')


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("late_return", 18, "late_period_steps"),
        ("late_period_steps", 1_000, "late_return"),
    ],
)
def test_a_late_period_of_evaluation_needs_its_return(key: str, value: int, needed: str) -> None:
    message = refusal(MINIMAL, {f"evaluation.{key}": value})
    assert message.startswith(f"[evaluation] {key}: needs {needed} beside it")


def test_evaluation_can_be_switched_off_whatever_a_recipe_has_for_later() -> None:
    tables, source = read_config("pong-dqn")
    config = build_config(tables, {"evaluation.period_steps": 0}, source)
    assert config.evaluation.late_return is not None


def test_a_number_in_place_of_a_list_is_told_how_to_write_one() -> None:
    hint = "lists stand in brackets, [10]"
    assert hint in refusal(MINIMAL, {"agent.late_return": 10})
    assert hint in refusal(tables_with("agent.late_return", 10))
    assert "brackets" not in refusal(MINIMAL, {"agent.late_return": True})
    message = refusal(MINIMAL, {"agent.late_epsilon": [1.5]})
    assert "less than or equal to 1" in message
    assert "brackets" not in message


class Kinds(Table):
    """Keys of every kind that may be None."""

    number: Probability | None = None
    several: list[int] | None = None
    choice: Literal["a", "b"] | None = None
    switch: bool | None = None
    text: str | None = None
    bounded_text: Annotated[str, Field(max_length=9)] | None = None
    choice_of_none: Literal["none", "a"] | None = None
    needed: int = 0
    needed_text: str = ""


@pytest.mark.parametrize(
    ("key", "takes"),
    [
        ("number", "number, 0 or more, at most 1, or none"),
        ("several", "none, or list of: whole number"),
        ("choice", "a | b | none"),
        ("switch", "true | false | none"),
        ("text", "text, or none"),
        ("bounded_text", "text, or none"),
    ],
)
def test_none_is_offered_and_taken_where_a_key_may_be_none(key: str, takes: str) -> None:
    assert describe_type(Kinds.model_fields[key]) == takes
    assert getattr(Kinds.model_validate({key: "none"}), key) is None


@pytest.mark.parametrize(
    ("key", "takes"), [("needed_text", "text"), ("choice_of_none", "none | a")]
)
def test_none_stays_text_where_it_is_a_choice_or_needed(key: str, takes: str) -> None:
    assert describe_type(Kinds.model_fields[key]) == takes
    assert getattr(Kinds.model_validate({key: "none"}), key) == "none"


def test_none_is_no_number() -> None:
    assert describe_type(Kinds.model_fields["needed"]) == "whole number"
    with pytest.raises(ValidationError, match="needed"):
        Kinds.model_validate({"needed": "none"})


def test_a_table_as_kwargs() -> None:
    config = build_config(MINIMAL, parse_option_values({"env.kwargs": "{sutton = true}"}), "t")
    assert config.env.kwargs == {"sutton": True}


# --- refusals: the same quality from a file and from an option ---

UNKNOWN = [
    ("agent.learning_rte", "agent.learning_rate"),
    ("agent.tau", None),
    ("env.num_env", "env.num_envs"),
    ("network.hidden_size", "network.hidden_sizes"),
    ("replay.capacty", "replay.capacity"),
    ("evaluation.period", "evaluation.period_steps"),
    ("recording.enable", "recording.enabled"),
    ("checkpoint.keeps", "checkpoint.keep"),
    ("logging.period", "logging.period_s"),
    ("agent.capacity", "replay.capacity"),  # in the wrong table
    ("env.gamma", "agent.gamma"),
    ("env.total_steps", "total_steps"),
]


@pytest.mark.parametrize(("key", "meant"), UNKNOWN)
def test_an_unknown_key_in_a_file(key: str, meant: str | None) -> None:
    message = refusal(tables_with(key, 1))
    assert message.startswith("test.toml: ")
    assert in_file(key) in message
    if meant is None:
        assert "learning_rate" in message  # what there is instead
    else:
        assert f"did you mean {in_file(meant)}?" in message


@pytest.mark.parametrize(("key", "meant"), UNKNOWN)
def test_an_unknown_key_as_an_option(key: str, meant: str | None) -> None:
    message = refusal(MINIMAL, {key: 1})
    assert option_flag(key) in message
    assert "test.toml" not in message
    if meant is None:
        assert "learning_rate" in message
    else:
        assert f"did you mean {option_flag(meant)}?" in message


@pytest.mark.parametrize(
    ("key", "meant"), [("total_step", "total_steps"), ("sed", "seed"), ("replayy", "replay")]
)
def test_an_unknown_name_at_the_top_of_a_file(key: str, meant: str) -> None:
    message = refusal({**MINIMAL, key: 1})
    assert f"test.toml: {key}" in message
    assert re.search(rf"did you mean '?{meant}'?\?", message)


def test_an_option_of_an_unknown_table_names_the_option() -> None:
    message = refusal(MINIMAL, {"replayy.capacity": 500})
    assert "--replayy" in message
    assert "test.toml" not in message
    assert "replay" in message.replace("replayy", "")


WRONG = [
    ("agent.learning_rate", "fast", "number"),
    ("agent.learning_rate", True, "number"),
    ("agent.double", 1, "true | false"),
    ("agent.double", "yes", "true | false"),
    ("agent.n_step", 1.5, "whole number"),
    ("agent.n_step", True, "whole number"),
    ("agent.n_step", "3", "whole number"),
    ("env.num_envs", True, "whole number"),
    ("env.num_envs", [4], "whole number"),
    ("env.kwargs", 3, "table"),
    ("network.hidden_sizes", 128, "list"),
    ("network.hidden_sizes", ["wide"], "list"),
    ("network.hidden_sizes", [0], "list of: whole number, 1 or more"),
    ("agent.late_epsilon", [1.5], "list of: number, 0 or more, at most 1"),
    ("agent.late_return", [], "at least 1 item"),
    ("total_steps", False, "whole number"),
    ("total_steps", "1000", "whole number"),
    ("total_steps", 0, "1 or more"),
    ("total_steps", 1e12 + 1, "at most"),
    ("seed", -1, "0 or more"),
    ("seed", 2**31, "below"),
    ("agent.gamma", 1.5, "at most 1"),
    ("agent.gamma", -0.1, "0 or more"),
    ("agent.learning_rate", 0, "above 0"),
    ("agent.learning_rate", math.nan, "number"),
    ("agent.learning_rate", math.inf, "number"),
    ("agent.max_grad_norm", -1, "0 or more"),
    ("agent.max_grad_norm", math.nan, "number"),
    ("agent.max_grad_norm", math.inf, "number"),
    ("agent.target_period_steps", math.inf, "whole number"),
    ("agent.target_period_steps", math.nan, "whole number"),
    ("replay.capacity", 1, "100 or more"),
    ("env.num_envs", 0, "1 or more"),
    ("evaluation.episodes", 0, "1 or more"),
    ("evaluation.period_steps", -1, "0 or more"),
    ("evaluation.epsilon", 2, "at most 1"),
    ("recording.scale", 17, "at most 16"),
    ("checkpoint.keep", 0, "1 or more"),
    ("checkpoint.period_steps", 0, "1 or more"),
    ("logging.period_s", 0, "above 0"),
    ("logging.period_s", math.inf, "number"),
    ("device", "gpu", "auto | cpu | cuda"),
    ("checkpoint.replay", "sometimes", "always | on-exit | never"),
]


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_value_in_a_file(key: str, value: object, expected: str) -> None:
    message = refusal(tables_with(key, value))
    assert f"test.toml: {in_file(key)}" in message
    assert expected in message
    assert "got " in message
    assert (repr(value) if isinstance(value, str) else json.dumps(value)).strip("'[]") in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("key", "value", "expected"), WRONG)
def test_a_wrong_value_as_an_option(key: str, value: object, expected: str) -> None:
    message = refusal(MINIMAL, {key: value})
    assert message.startswith(f"{option_flag(key)}: ")
    assert "test.toml" not in message
    assert message.partition(": ")[2] == refusal(tables_with(key, value)).split(": ", 2)[2]
    assert expected in message


def test_a_misspelt_choice_says_the_nearest() -> None:
    assert "did you mean 'nature-cnn'?" in refusal(tables_with("network.torso", "nature_cnn"))
    assert "did you mean 'on-exit'?" in refusal(tables_with("checkpoint.replay", "onexit"))


@pytest.mark.parametrize("table", ["env", "agent", "network", "replay", "evaluation", "logging"])
def test_a_value_in_place_of_a_table(table: str) -> None:
    message = refusal({**MINIMAL, table: 3})
    assert f"test.toml: {table}" in message
    assert "table" in message
    assert "unknown key" not in message


def test_a_key_on_top_of_something_that_is_no_table() -> None:
    assert "table" in refusal({"env": 3}, {"env.id": "cartpole"})


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    config = build(total_steps=1e6, replay__capacity=5e4)
    assert config.total_steps == 1_000_000
    assert isinstance(config.total_steps, int)
    assert config.replay.capacity == 50_000  # type: ignore[union-attr]


def test_a_missing_environment_is_named_with_both_ways_to_give_it() -> None:
    for tables in ({}, {"env": {}}, {"env": {"num_envs": 4}}):
        message = refusal(tables)
        assert "env" in message
        assert "missing" in message
    assert "--env.id" in refusal({"env": {}})
    assert "--env.id" in refusal({})


def test_an_unknown_agent() -> None:
    message = refusal(tables_with("agent.name", "dqm"))
    assert "'dqm'" in message
    assert "did you mean 'dqn'?" in message
    assert "reinforce" in refusal(tables_with("agent.name", "zzz"))


@pytest.mark.parametrize("name", [3, True, ["dqn"]])
def test_an_agents_name_that_is_no_text(name: object) -> None:
    assert "[agent] name" in refusal(tables_with("agent.name", name))


def test_reinforce_has_no_replay_in_a_file() -> None:
    message = refusal(tables_with("replay.capacity", 1000, "reinforce"))
    assert "test.toml" in message
    assert "'reinforce'" in message
    assert "[replay]" in message
    assert "leave it out" in message


def test_reinforce_has_no_replay_as_an_option() -> None:
    message = refusal(tables_with("agent.name", "reinforce"), {"replay.capacity": 1000})
    assert "--replay.capacity" in message
    assert "test.toml" not in message  # the file is not to blame
    assert "'reinforce'" in message


def test_an_agent_refuses_the_keys_of_another() -> None:
    message = refusal(tables_with("agent.episodes_per_update", 8))
    assert "[agent] episodes_per_update" in message
    message = refusal(tables_with("agent.double", True, "reinforce"))
    assert "[agent] double" in message


def test_values_that_contradict_each_other() -> None:
    message = refusal(MINIMAL, {"agent.learning_starts": 5_000, "replay.capacity": 1_000})
    assert "learning_starts" in message
    assert "capacity" in message
    message = refusal(MINIMAL, {"agent.learning_starts": 3, "env.num_envs": 8})
    assert "16" in message  # the fewest that would do
    message = refusal(
        tables_with("agent.episodes_per_update", 10, "reinforce"), {"env.num_envs": 4}
    )
    assert "episodes_per_update" in message
    assert re.search(r"set it to (8|12)", message)


def test_several_mistakes_are_all_named() -> None:
    message = refusal({**tables_with("agent.gama", 1), "seed": -1})
    assert "gamma" in message
    assert "seed" in message


# --- files ----------------------------------------


def test_a_config_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="did you mean 'pong-dqn'") as caught:
        read_config("pong-dqm")
    assert "pong-reinforce" in str(caught.value)
    with pytest.raises(UsageError, match=r"nowhere/at-all\.toml"):
        read_config("nowhere/at-all.toml")


def test_a_config_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        read_config(tmp_path)


def test_a_config_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[env]\nid = cartpole\n")
    with pytest.raises(UsageError, match=r"broken\.toml is not valid TOML") as caught:
        read_config(path)
    assert "line 2" in str(caught.value)


def test_a_config_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(UsageError, match=r"binary\.toml"):
        read_config(path)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("total_step = 5", "total_step"),
        ("[agent]\nlearning_rte = 1", "[agent] learning_rte"),
        ("[agent]\ngamma = 2", "[agent] gamma"),
        ("[agent]\ngamma = true", "[agent] gamma"),
    ],
)
def test_the_command_names_the_file_that_is_wrong(
    cli: Callable[..., Any], tmp_path: Path, text: str, key: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{text}\n[env]\nid = 'cartpole'\n")
    outcome = cli("train", path, "--runs-dir", tmp_path / "runs")
    assert outcome.code == 2
    assert key in outcome.err
    assert "mine.toml" in outcome.err
    assert not (tmp_path / "runs").exists()


# --- properties ----------------------------------------


def _bounds(takes: str) -> tuple[bool, float, float, bool, bool]:
    """What a help text promises: whole?, low, high, low excluded?, high excluded?"""
    low, high, above, below = -math.inf, math.inf, False, False
    for part in takes.removesuffix(", or none").split(", ")[1:]:
        number = float(re.sub(r"[^0-9e.+-]", "", re.sub(r"or more|at most|above|below", "", part)))
        if "or more" in part:
            low = number
        elif "above" in part:
            low, above = number, True
        elif "at most" in part:
            high = number
        elif "below" in part:
            high, below = number, True
        else:
            raise AssertionError(part)
    return takes.startswith("whole"), low, high, above, below


NUMERIC = {
    (agent, option.name): _bounds(option.takes)
    for agent in AGENTS
    for option in options(RunConfig.for_agent(agent))
    if option.takes.startswith(("whole number", "number"))
}
# Values that are each allowed may contradict one another; these are tried on their own above.
CONTRADICTING = (
    "agent.learning_starts",
    "agent.n_step",
    "agent.epsilon_spread",
    "agent.target_tau",
    "agent.learning_rate_end",
    "agent.learning_rate_decay_steps",
    "agent.rmsprop_decay",
    "agent.rmsprop_epsilon",
    "evaluation.episodes",
    "evaluation.stop_episodes",
    "evaluation.late_return",
    "evaluation.late_period_steps",
    "agent.num_atoms",
    "agent.value_min",
    "agent.value_max",
    "agent.episodes_per_update",
    "agent.points_per_update",
    *("agent.rollout_steps", "agent.minibatches"),
    *("agent.entropy_coefficient_end", "agent.entropy_coefficient_decay_steps"),
    "replay.capacity",
    *(f"replay.{key}" for key in ReplayConfig.model_fields if key.startswith(("prio", "impo"))),
    "env.num_envs",
    # and these mean nothing unless replay is by priority
    "replay.priority_exponent",
    "replay.priority_epsilon",
    "replay.importance_exponent_start",
    "replay.importance_exponent_end",
    "replay.importance_exponent_steps",
)


NONE_IS_TEXT = (
    "env.id",
    "device",
    "agent.baseline",
    "replay.compression",
)


def _offers_none(takes: str) -> bool:
    return takes.startswith("none, or ") or takes.endswith((", or none", " | none"))


@pytest.mark.parametrize("agent", AGENTS)
def test_none_is_taken_exactly_where_help_offers_it(agent: str) -> None:
    counts = {True: 0, False: 0}
    for option in options(RunConfig.for_agent(agent)):
        key, offered = option.name, _offers_none(option.takes)
        if key in NONE_IS_TEXT:
            continue
        counts[offered] += 1
        if not offered:
            assert refusal(tables_with("agent.name", agent), {key: "none"}), key
            continue
        for config in (
            build_config(tables_with("agent.name", agent), {key: "none"}, "test.toml"),
            build_config(tables_with(key, "none", agent), {}, "test.toml"),
        ):
            kept: Any = config
            for part in key.split("."):
                kept = getattr(kept, part)
            assert kept is None, key
    assert min(counts.values()) > 8


def test_every_number_has_a_lower_bound() -> None:
    assert len(NUMERIC) > 30
    for (_, key), (_, low, *_rest) in NUMERIC.items():
        assert math.isfinite(low), key


@given(st.sampled_from(sorted(NUMERIC)), st.data())
def test_a_number_out_of_bounds_is_refused(which: tuple[str, str], data: st.DataObject) -> None:
    agent, key = which
    whole, low, high, above, below = NUMERIC[which]
    sides = ["low"] + (["high"] if math.isfinite(high) else [])
    strategy: Any
    if data.draw(st.sampled_from(sides)) == "low":
        strategy = (
            st.integers(max_value=int(low) - (0 if above else 1))
            if whole
            else st.floats(max_value=low, allow_nan=False, exclude_max=not above)
        )
    else:
        strategy = (
            st.integers(min_value=int(high) + (0 if below else 1))
            if whole
            else st.floats(min_value=high, allow_nan=False, exclude_min=not below)
        )
    value = data.draw(strategy)
    message = refusal(tables_with("agent.name", agent), {key: value})
    assert message.startswith(option_flag(key))
    assert in_file(key) in refusal(tables_with(key, value, agent))


def _inside(data: st.DataObject, which: tuple[str, str]) -> Any:
    whole, low, high, above, below = NUMERIC[which]
    if whole:
        top = int(min(high, 2**53)) - below
        return data.draw(st.integers(int(low) + above, top))
    return data.draw(
        st.floats(low, min(high, 1e12), exclude_min=above, exclude_max=below, allow_nan=False)
    )


@given(st.sampled_from(sorted(NUMERIC)), st.data())
def test_a_number_within_bounds_is_kept(which: tuple[str, str], data: st.DataObject) -> None:
    agent, key = which
    assume(key not in CONTRADICTING)
    value = _inside(data, which)
    for config in (
        build_config(tables_with("agent.name", agent), {key: value}, "test.toml"),
        build_config(tables_with(key, value, agent), {}, "test.toml"),
    ):
        kept: Any = config
        for part in key.split("."):
            kept = getattr(kept, part)
        assert kept == value


@pytest.mark.parametrize(
    "values",
    [
        {"agent.target_tau": 0.005},
        {"agent.learning_rate_end": 0.0, "agent.learning_rate_decay_steps": 1000},
        {"agent.optimizer": "rmsprop", "agent.rmsprop_decay": 0.0, "agent.rmsprop_epsilon": 1.0},
        {"agent.late_return": [-20.0], "agent.late_learning_rate": [1e-3]},
        {"agent.late_return": [0.0, 1.0], "agent.late_update_period_steps": [16, 8]},
        {"agent.late_return": [0.0], "agent.late_epsilon": [0.0]},
        {"agent.average_decay": 0.999},
        {"agent.loss": "categorical", "agent.value_min": -1e6, "agent.value_max": 0.0},
        {
            **{"agent.loss": "categorical", "agent.value_min": -1.0, "agent.value_max": 1.0},
            "agent.num_atoms": 2,
        },
    ],
)
def test_options_that_belong_together_are_kept(values: dict[str, Any]) -> None:
    config = build_config(MINIMAL, values, "test.toml")
    again = build_config(json.loads(json.dumps(config.model_dump(mode="json"))), {}, "again")
    for key, value in values.items():
        assert getattr(again.agent, key.removeprefix("agent.")) == value


@given(st.sampled_from(AGENTS), st.data())
def test_a_config_written_as_json_comes_back_equal(agent: str, data: st.DataObject) -> None:
    known = [key for name, key in NUMERIC if name == agent and key not in CONTRADICTING]
    keys = data.draw(st.lists(st.sampled_from(sorted(known)), unique=True, max_size=6))
    overrides = {key: _inside(data, (agent, key)) for key in keys}
    overrides["network.hidden_sizes"] = data.draw(
        st.none() | st.lists(st.integers(1, 1024), max_size=4)
    )
    overrides["env.kwargs"] = data.draw(
        st.dictionaries(st.text(max_size=5), st.integers() | st.booleans() | st.text(max_size=5))
    )
    config = build_config(tables_with("agent.name", agent), overrides, "test.toml")
    again = build_config(json.loads(json.dumps(config.model_dump(mode="json"))), {}, "again")
    assert again.model_dump() == config.model_dump()
    assert again.agent_name == agent
