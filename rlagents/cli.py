"""The command line: one short function a verb. What a verb does stands in other modules."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from rlagents.errors import RLAgentsError, StoppedError, UsageError, did_you_mean, nearest_name
from rlagents.signals import StopSignal
from rlagents.streams import silence_gone_streams

if TYPE_CHECKING:
    from rlagents.api import Pretrained, Run
    from rlagents.config import Option

_RUNS_DIR = Path("runs")
_LISTS = ("envs", "agents", "configs", "pretrained")
_TRAIN_VALUES = ("--name", "--runs-dir", "--init-from", "--init-checkpoint")  # take a value
_TOP_LEVEL = ("--total-steps", "--seed", "--device")
_PROFILE_HELP = "end with a table of where the time went, kept in profile.json too"
_INIT_FROM_HELP = "begin with the trained weights of a run (folder or name), and nothing else of it"
_INIT_CHECKPOINT_HELP = "which of that run's (default: the best, else the last)"
_DEFAULT_OF = {"env": "as the environment says", "network": "as the torso says"}
_TRAIN_EXAMPLES = """examples:
  rlagents train cartpole-dqn
  rlagents train pong-dqn --seed 2 --agent.n-step 3
  rlagents train my-config.toml --env.num-envs 16 --name try-1"""


class _Parser(argparse.ArgumentParser):
    """Refuses with one message and the nearest right name."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UsageError(f"{message}. See: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except RLAgentsError as error:
        _print_quietly(f"rlagents: {error}", sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _print_quietly("rlagents: stopped", sys.stderr)
        return StoppedError.exit_code
    except OSError:  # `rlagents list envs | head`
        if not silence_gone_streams():
            raise
        return 0


def _print_quietly(text: str, file: TextIO) -> None:
    """Print a line; that nobody is left to read it is no error."""
    try:
        print(text, file=file, flush=True)
    except OSError:
        silence_gone_streams()


def _dispatch(words: list[str]) -> int:
    overrides: dict[str, Any] = {}
    if words[:1] == ["train"]:
        words, overrides = _split_overrides(words)
    elif words[:1] in (["evaluate"], ["record"]):
        words, overrides = _split_overrides(words, ("env", "evaluation"))
    parser = _make_parser()
    if words[:1] == ["train"] and ("-h" in words or "--help" in words):
        _print_train_help(words[1:], overrides)
        return 0
    options, unknown = parser.parse_known_args(words)
    if unknown:
        _refuse(unknown[0], options.command, _flags(parser, options.command))
    if options.command is None:
        parser.print_help()
        return 0
    if options.command in ("train", "resume"):
        # From the first moment on, a signal means 130; a run takes over once it is there.
        with StopSignal() as stop, stop.at_once("Stopped."):
            if options.command == "resume":
                return _resume(options)
            return _train(options, overrides)
    options.changes = overrides
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "evaluate": _evaluate,
        "record": _record,
        "watch": _watch,
        "compare": _compare,
        "report": _report,
        "list": _list,
        "doctor": _doctor,
    }
    return verbs[options.command](options)


def _make_parser() -> _Parser:
    parser = _Parser(
        prog="rlagents",
        description="Train deep reinforcement learning agents and watch the games they play.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rlagents {_version()}")
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name,
            help=text,
            description=text,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    train = verb("train", "train an agent")
    train.add_argument("config", metavar="CONFIG", help="a recipe's name or a TOML file")
    _add_runs_dir(train)
    train.add_argument("--name", help="the run's name (default: CONFIG-sSEED-TIMESTAMP)")
    train.add_argument("--init-from", metavar="RUN", help=_INIT_FROM_HELP)
    train.add_argument("--init-checkpoint", metavar="best|last|STEP", help=_INIT_CHECKPOINT_HELP)
    _add_profile(train)

    resume = verb("resume", "go on with a stopped or finished run")
    _add_run(resume)
    resume.add_argument(
        "--total-steps",
        type=_count,
        default=argparse.SUPPRESS,
        metavar="N",
        help="agent steps in all, 1 or more; a run that had reached its stop_return and "
        "stop_success goes on without them (default: as the run was begun with)",
    )
    _add_allow_import(resume)
    _add_profile(resume)

    evaluate = verb("evaluate", "play whole episodes and report the returns")
    _add_run(evaluate)
    _add_pretrained(evaluate)
    _add_episodes(evaluate, "the config's number")
    _add_checkpoint(evaluate)
    _add_seed(evaluate)
    _add_changes(evaluate)
    _add_allow_import(evaluate)
    evaluate.add_argument(
        "--map",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE.png",
        help="draw where the episodes ended over the level, in an environment that has a map "
        "(Super Mario Bros.); .svg and .pdf can be written as well",
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")

    record = verb("record", "write gameplay videos")
    _add_run(record)
    _add_pretrained(record)
    _add_episodes(record, "1")
    _add_checkpoint(record)
    _add_seed(record)
    record.add_argument(
        "--training-episode",
        type=_whole,
        default=argparse.SUPPRESS,
        metavar="K",
        help="show episode K of training, 0 or more, rebuilt from its seed and actions",
    )
    record.add_argument(
        "--output",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE",
        help="the file, .mp4, .webm, .gif or .webp (animated); several are numbered (default: in "
        "the run's videos folder; with --pretrained a new name in the current folder)",
    )
    record.add_argument(
        "--tiled",
        action="store_true",
        help="show the episodes at once, in one video; needs --episodes N, 2 to 64",
    )
    record.add_argument(
        "--caption",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="a strip below the picture with return so far, step, action and its value (default: "
        "as [recording] caption says)",
    )
    record.add_argument(
        "--scale",
        type=_count,
        default=argparse.SUPPRESS,
        metavar="N",
        help="each pixel becomes a square of N by N, 1 to 16 (default: as [recording] scale says)",
    )
    record.add_argument(
        "--from-second",
        type=_number,
        default=argparse.SUPPRESS,
        metavar="S",
        help="begin at second S of an episode, 0 or more (default: 0)",
    )
    record.add_argument(
        "--seconds",
        type=_number,
        default=argparse.SUPPRESS,
        metavar="N",
        help="show N seconds of an episode, above 0 (default: to its end)",
    )
    record.add_argument(
        "--explain",
        nargs="?",
        type=lambda text: text.split(","),
        const=["perturbation"],
        default=argparse.SUPPRESS,
        metavar="METHOD",
        help="write another video beside each, which shows where the network looks: perturbation "
        "(20 ms a step, the clearest), gradient or grad-cam (1 ms), or several with commas between "
        "(default without METHOD: perturbation)",
    )
    record.add_argument(
        "--explain-of",
        choices=("action", "advantage"),
        default=argparse.SUPPRESS,
        help="what is explained: the value (or log-probability) of the action that was played, or "
        "by how much its value is above the mean of all actions' (default: action)",
    )
    _add_changes(record)
    _add_allow_import(record)

    watch = verb("watch", "show runs in the browser, with videos, curves and live runs")
    watch.add_argument(
        "runs_dir",
        nargs="?",
        type=Path,
        default=_RUNS_DIR,
        metavar="RUNS_DIR",
        help="the runs folder, or a run's own folder or its name under runs",
    )
    watch.add_argument(
        "--port",
        type=_port,
        default=argparse.SUPPRESS,
        metavar="P",
        help="0 to 65535, 0 for any that is free (default: the first free one from 8420 on)",
    )
    watch.add_argument(
        "--host",
        default=argparse.SUPPRESS,
        metavar="H",
        help="name or address to listen on; needs --token if other machines can reach it "
        "(default: 127.0.0.1, this machine alone)",
    )
    watch.add_argument(
        "--token",
        default=argparse.SUPPRESS,
        metavar="T",
        help="what a browser must show: 16 to 200 letters, digits, - and _ (default: none)",
    )
    watch.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="open the page in a browser (default: if there is a screen)",
    )
    _add_allow_import(watch)

    compare = verb("compare", "compare runs, one by one and over seeds: a table and a picture")
    compare.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a run's folder, or its name in the runs folder; runs that differ in nothing but "
        "their seed are one group",
    )
    _add_runs_dir(compare)
    compare.add_argument(
        "--output",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FILE.png",
        help="draw the curves, too; .svg and .pdf can be written as well",
    )
    compare.add_argument(
        "--x",
        choices=("steps", "time"),
        default=argparse.SUPPRESS,
        help="what the curves are drawn over (default: steps)",
    )
    compare.add_argument(
        "--what",
        choices=("training", "evaluation"),
        default=argparse.SUPPRESS,
        help="what the curves are: the mean return of the last 100 training episodes, or that of "
        "the evaluations (default: training)",
    )
    compare.add_argument(
        "--statistic",
        choices=("mean", "iqm"),
        default="mean",
        help="over the runs of a group: mean, or interquartile mean",
    )
    compare.add_argument(
        "--json", action="store_true", help="print one JSON object, with the curves in it"
    )

    report = verb("report", "write one page about a run that can be sent: curve, table, video")
    _add_run(report)
    report.add_argument(
        "--output",
        type=Path,
        required=True,
        default=argparse.SUPPRESS,
        metavar="FILE.html",
        help="the page; an older one is replaced",
    )
    report.add_argument(
        "--video",
        default=argparse.SUPPRESS,
        metavar="ID|none",
        help="which video goes in, at most 25 MB: its name in the run's videos folder without "
        "the ending, or none (default: the newest of the best evaluation, else of the last one "
        "recorded, else of training)",
    )

    listing = verb("list", "show what there is")
    listing.add_argument(
        "what",
        choices=_LISTS,
        metavar="|".join(_LISTS),
        help="what to show",
    )
    listing.add_argument("--json", action="store_true", help="print an array of objects")

    verb("doctor", "check the installation: encoder, games, device, threads, disk")
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's folder, or its name in the runs folder")
    _add_runs_dir(parser)


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--env.KEY",
        metavar="VALUE",
        default=argparse.SUPPRESS,
        help="play in another environment than that of training: any key of [env] that leaves "
        "observations and actions as they are, such as --env.sticky-probability 0.25",
    )
    for key, text in (
        ("epsilon", "chance of a random action, 0 to 1"),
        ("sample", "true or false: draw actions from the policy's probabilities"),
    ):
        parser.add_argument(
            f"--evaluation.{key}",
            metavar="VALUE",
            default=argparse.SUPPRESS,
            help=f"{text} (default: as [evaluation] {key} says)",
        )


def _add_pretrained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pretrained",
        action="store_true",
        help="play an agent that comes with rlagents; RUN is its name (rlagents list pretrained)",
    )


def _add_runs_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs-dir", type=Path, default=_RUNS_DIR, metavar="DIR", help="the runs folder"
    )


def _add_allow_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-import",
        action="store_true",
        help="import the environment that a run names even if it is code that you have not trained "
        "with on this machine",
    )


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", action="store_true", help=_PROFILE_HELP)


def _add_episodes(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--episodes",
        type=_count,
        default=argparse.SUPPRESS,
        metavar="N",
        help=f"episodes to play, 1 or more (default: {default})",
    )


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        default=argparse.SUPPRESS,
        metavar="best|last|STEP",
        help="which one to play (default: the best, else the last)",
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=_whole,
        default=argparse.SUPPRESS,
        metavar="N",
        help="of the episodes, 0 or more (default: the run's)",
    )


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def _count(text: str) -> int:
    try:
        number = float(text)  # 6e5 and 600_000 as in a config
    except ValueError:
        number = 0.0
    if number < 1 or not number.is_integer():
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, got {text!r}")
    return int(number)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 to 65535, got {text!r}")
    return int(text)


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("rlagents")


def _split_overrides(
    words: list[str], tables: Sequence[str] | None = None
) -> tuple[list[str], dict[str, Any]]:
    """Take the config's keys out of the words: `--agent.gamma 0.9`, `--seed=3`.

    Args:
        words: of the command line.
        tables: only keys of these; all, and the top level's, if None.
    """
    rest: list[str] = []
    overrides: dict[str, Any] = {}
    position = 0
    while position < len(words):
        word = words[position]
        flag, equals, text = word.partition("=")
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        position += 1
        table, dot, _ = flag.removeprefix("--").partition(".")
        wanted = (dot or flag in _TOP_LEVEL) if tables is None else (dot and table in tables)
        if not (flag.startswith("--") and wanted):
            rest.append(word)
            continue
        if not equals:
            following = words[position] if position < len(words) else "--"
            if following.startswith("--"):
                raise UsageError(
                    f"{flag}: expected a value after it. See: rlagents {words[0]} --help"
                )
            text = following
            position += 1
        overrides[flag.removeprefix("--").replace("-", "_")] = text
    return rest, overrides


def _flags(parser: argparse.ArgumentParser, command: str | None) -> list[str]:
    """Return the options of a verb, as its usage names them."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        parser.parse_args([command or "--help", "--help"])
    return re.findall(r"--[a-z][a-z.-]+", text.getvalue())


def _refuse(word: str, command: str | None, known_options: Sequence[str]) -> NoReturn:
    if command == "train" and word.startswith("--"):
        from rlagents.agents import list_agents
        from rlagents.config import RunConfig, options

        known = {flag: flag for flag in (*_TRAIN_VALUES, "--profile")}
        for name, _ in list_agents():
            for option in options(RunConfig.for_agent(name)):
                known[option.flag] = option.flag
                known.setdefault("--" + option.flag.rpartition(".")[2].lstrip("-"), option.flag)
        flag = word.partition("=")[0]
        nearest = nearest_name(flag, known)
        suggestion = "." if nearest is None else f"; did you mean {known[nearest]}?"
        raise UsageError(f"unknown option {flag}{suggestion} See: rlagents train --help")
    suggestion = did_you_mean(word.partition("=")[0], known_options)
    raise UsageError(f"unknown argument {word!r}{suggestion} See: rlagents {command} --help")


def _print_train_help(words: list[str], overrides: Mapping[str, Any]) -> None:
    """Print every key of the config named among the words, or of every agent's configs."""
    from rlagents.agents import list_agents
    from rlagents.config import DEFAULT_AGENT, RunConfig, builtin_configs, options, read_config

    values = {k + 1 for k, word in enumerate(words) if word in _TRAIN_VALUES}
    names = [word for k, word in enumerate(words) if k not in values and not word.startswith("-")]
    print("usage: rlagents train CONFIG [--table.key value ...] [--name NAME] [--runs-dir DIR]")
    print("                      [--init-from RUN [--init-checkpoint best|last|STEP]]")
    print("                      [--profile]\n")
    print("Train an agent. CONFIG is the path of a TOML file, or a recipe's name:")
    for name, text in builtin_configs().items():
        print(f"  {name:20} {text}")
    print("\noptions:")
    print("  --runs-dir DIR   the runs folder (default: runs)")
    print("  --name NAME      the run's name (default: CONFIG-sSEED-TIMESTAMP)")
    print(f"  --init-from RUN  {_INIT_FROM_HELP}")
    print(f"  --init-checkpoint best|last|STEP\n                   {_INIT_CHECKPOINT_HELP}")
    print(f"  --profile        {_PROFILE_HELP}")
    tables = read_config(names[0])[0] if names else {}
    table = tables.get("agent")
    given = table.get("name") if isinstance(table, Mapping) else None
    chosen = str(overrides.get("agent.name", given or DEFAULT_AGENT))
    agent_names = [chosen] if names else [name for name, _ in list_agents()]
    shown: set[str] = set()
    title = f"of {names[0]}" if names else "with the agents' own defaults"
    print(f"\nkeys of the config, {title}; each is an option (none leaves out what can be none):")
    for agent in agent_names:
        for option in options(RunConfig.for_agent(agent), tables):
            if option.name.startswith("agent.") and len(agent_names) > 1:
                _print_option(option, f"{agent}: ")
            elif option.name not in shown:
                shown.add(option.name)
                _print_option(option, "")
    print(f"\n{_TRAIN_EXAMPLES}")


def _print_option(option: Option, prefix: str) -> None:
    default = option.default
    if hasattr(default, "model_dump"):
        return
    shown = json.dumps(default)
    if default is None:
        means = _DEFAULT_OF.get(option.name.partition(".")[0])
        shown = "none" if means is None else f"none, {means}"
    shown = shown if default != "required" else "required"
    print(f"  {option.flag}\n      {prefix}{option.help} [{option.takes}; default: {shown}]")


def _train(options: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    from rlagents.config import build_config, parse_option_values, read_config
    from rlagents.training import start_run

    tables, recipe = read_config(options.config)
    config = build_config(tables, parse_option_values(overrides), options.config)
    folder = start_run(
        config,
        runs_dir=options.runs_dir,
        name=options.name,
        recipe=recipe,
        profile=options.profile,
        init_from=options.init_from,
        init_checkpoint=options.init_checkpoint,
        announce=_announce,
    )
    _announce(folder.directory)
    return 0


def _resume(options: argparse.Namespace) -> int:
    from rlagents.run import RunFolder
    from rlagents.training import resume_run

    folder = RunFolder.open(options.run, options.runs_dir)
    total_steps = getattr(options, "total_steps", None)
    resume_run(
        folder,
        total_steps=total_steps,
        profile=options.profile,
        allow_import=options.allow_import,
        announce=_announce,
    )
    _announce(folder.directory)
    return 0


def _announce(directory: Path) -> None:
    _print_quietly(f"run: {directory}", sys.stdout)


def _open(options: argparse.Namespace) -> Run | Pretrained:
    """Return what RUN names, with what `--env.KEY` and `--evaluation.KEY` change.

    That is a run or, with --pretrained, an agent that comes with the package.
    """
    from rlagents.config import parse_option_values

    agent = _find(options)
    tables: dict[str, dict[str, Any]] = {"evaluation": {}, "env": {}}
    for name, value in parse_option_values(options.changes).items():
        table, _, key = name.partition(".")
        tables[table][key] = value
    if tables["evaluation"]:
        agent = agent.with_evaluation(tables["evaluation"])
    return agent.in_env(tables["env"]) if tables["env"] else agent


def _find(options: argparse.Namespace) -> Run | Pretrained:
    from rlagents.api import load_pretrained, open_run

    if not options.pretrained:
        return open_run(options.run, runs_dir=options.runs_dir, allow_import=options.allow_import)
    given = [key for key in ("checkpoint", "training_episode") if hasattr(options, key)]
    if options.runs_dir != _RUNS_DIR:
        given.append("runs_dir")
    if given:
        flag = "--" + given[0].replace("_", "-")
        raise UsageError(
            f"{flag} does not go with --pretrained: it is about runs, and what comes with rlagents "
            "is one network of each agent; leave one of them out."
        )
    return load_pretrained(options.run)


@contextlib.contextmanager
def _busy(text: str) -> Iterator[None]:
    """Show at a terminal that something takes time, and how long it has been at it."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    shown.add_task(text, total=None)
    try:
        shown.start()
    except OSError:  # the terminal is gone
        silence_gone_streams()
        yield
        return
    try:
        yield
    finally:
        try:
            shown.stop()
        except OSError:
            silence_gone_streams()


def _checkpoint(options: argparse.Namespace) -> dict[str, Any]:
    """Return the argument by which a run takes --checkpoint, if it is given."""
    return {"checkpoint": options.checkpoint} if hasattr(options, "checkpoint") else {}


def _evaluate(options: argparse.Namespace) -> int:
    from rlagents.evaluate import describe_success
    from rlagents.wording import finite

    agent = _open(options)
    if hasattr(options, "map"):
        agent.check_map(options.map)
    with StopSignal() as stop, _busy("playing"):
        evaluation = agent.evaluate(
            getattr(options, "episodes", None),
            seed=getattr(options, "seed", None),
            should_stop=stop,
            **_checkpoint(options),
        )
    if hasattr(options, "map"):
        with StopSignal() as stop, stop.at_once("Stopped; no map was drawn."), _busy("drawing"):
            agent.draw_map(evaluation, options.map)
    result = evaluation.as_dict()
    if options.json:
        print(json.dumps(finite(result), allow_nan=False))
        return 0
    low, high = result["iqm_ci95"]
    print(f"{result['env_id']}, {result['checkpoint']} of {result['run']}")
    for table in ("env", "evaluation"):
        for key, value in result.get(table, {}).items():
            print(f"  {key + ' ':12} {value} (not as in training)")
    print(f"  episodes     {result['episodes']} (seed {result['seed']}, ε {result['epsilon']:g})")
    if "distinct_episodes" in result:
        print(
            f"  different    {result['distinct_episodes']}: each of the others is one of these "
            "again, action for action"
        )
    if evaluation.success_rate is not None:
        print(f"  completed    {describe_success(evaluation)}")
    print(f"  mean return  {result['mean_return']:.2f} ± {result['std_return']:.2f}")
    print(f"  IQM          {result['iqm_return']:.2f}, 95 % interval {low:.2f} to {high:.2f}")
    print(f"  range        {result['min_return']:g} to {result['max_return']:g}")
    print(f"  mean length  {result['mean_length']:.1f} agent steps")
    if hasattr(options, "map"):
        print(options.map)
    return 0


def _record(options: argparse.Namespace) -> int:
    from rlagents.api import Run
    from rlagents.film import ViewOptions, overlay_path
    from rlagents.naming import size_note

    if options.changes and hasattr(options, "training_episode"):
        raise UsageError(
            f"--{next(iter(options.changes))} does not go with --training-episode, which shows an "
            "episode as it was played; leave one of them out."
        )
    agent = _open(options)
    output = getattr(options, "output", None)
    view: Any = {key: vars(options)[key] for key in ViewOptions.__annotations__ if key in options}
    if isinstance(agent, Run) and hasattr(options, "training_episode"):
        for other in ("episodes", "checkpoint", "seed", "tiled"):
            if getattr(options, other, False) is not False:
                raise UsageError(
                    f"--{other} does not go with --training-episode, which shows one episode as it "
                    "was played; leave one of them out."
                )
        number = options.training_episode
        with _filming():
            paths = [
                agent.record_training_episode(
                    number,
                    output=output,
                    note=lambda text: print(f"note: {text}", file=sys.stderr),
                    **view,
                )
            ]
    else:
        with _filming():
            paths = agent.record(
                getattr(options, "episodes", 1),
                seed=getattr(options, "seed", None),
                output=output,
                tiled=options.tiled,
                **_checkpoint(options),
                **view,
            )
    overlays = [overlay_path(path, method) for path in paths for method in view.get("explain", ())]
    for path in [*paths, *overlays]:
        print(path)
        if note := size_note(path):
            print(note, file=sys.stderr)
    return 0


@contextlib.contextmanager
def _filming() -> Iterator[None]:
    """Say what takes its time, and end it at the first signal, with what it was writing removed.

    Without this, the library that draws some games takes SIGTERM for a closed window and goes on.
    """
    message = "recording was stopped; what was not complete has been removed"
    with StopSignal() as stop, stop.at_once(message), _busy("playing and filming"):
        yield


def _watch(options: argparse.Namespace) -> int:
    from rlagents.watch import serve

    directory = options.runs_dir
    named = _RUNS_DIR / directory
    if not os.path.isdir(directory) and os.path.isfile(named / "config.json"):
        directory = named
    serve(
        directory,
        port=getattr(options, "port", None),
        host=getattr(options, "host", None),
        token=getattr(options, "token", None),
        open_page=getattr(options, "open", None),
        allow_import=options.allow_import,
    )
    return 0


def _compare(options: argparse.Namespace) -> int:
    from rlagents.compare import compare_runs

    output = getattr(options, "output", None)
    if output is None and not options.json:
        for name in ("x", "what"):
            if hasattr(options, name):
                raise UsageError(
                    f"--{name} is about the curves, which the table does not show; add --output "
                    "FILE.png or --json, or leave it out."
                )
    comparison = compare_runs(
        options.runs,
        runs_dir=options.runs_dir,
        output=output,
        axis=getattr(options, "x", "steps"),
        what=getattr(options, "what", "training"),
        statistic=options.statistic,
    )
    if options.json:
        print(json.dumps(comparison.as_dict(), allow_nan=False))
        return 0
    print(comparison.table())
    if output is not None:
        print(f"\n{output}")
    return 0


def _report(options: argparse.Namespace) -> int:
    from rlagents.report import write_report

    video = {"video": options.video} if hasattr(options, "video") else {}
    write_report(options.run, options.output, runs_dir=options.runs_dir, **video)
    print(options.output)
    return 0


def _list(options: argparse.Namespace) -> int:
    if options.what == "configs":
        from rlagents.config import builtin_configs

        rows = list(builtin_configs().items())
    elif options.what == "pretrained":
        from rlagents.pretrained import list_pretrained

        rows = list_pretrained()
    elif options.what == "agents":
        from rlagents.agents import list_agents

        rows = list_agents()
    else:
        from rlagents.envs import list_envs

        rows = [(spec.name, spec.description) for spec in list_envs()]
    if options.json:
        print(json.dumps([{"name": name, "description": text} for name, text in rows]))
        return 0
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:{width}}  {text}")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from rlagents.doctor import examine

    return 0 if examine() else 1
