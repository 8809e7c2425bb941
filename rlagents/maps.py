"""`rlagents evaluate --map`: where the episodes of an evaluation ended, drawn over the level."""

from __future__ import annotations

from pathlib import Path

from rlagents.envs import EnvConfig, EnvSpec, Walk
from rlagents.errors import RLAgentsError, UsageError
from rlagents.evaluate import Evaluation, describe_success
from rlagents.output import PICTURES, check_name, check_writable, write_whole
from rlagents.wording import printable


def check_map(spec: EnvSpec, output: Path) -> None:
    """Raise if no map can be drawn there; nothing is played for that.

    Raises:
        UsageError: the environment has no map, or the file cannot be written.
    """
    if spec.draw_map is None:
        raise UsageError(f"--map: {spec.name} has no map, as Super Mario Bros. has; leave it out.")
    check_name(output, PICTURES, option="--map")
    check_writable(output.parent, output, option="--map")


def draw_map(spec: EnvSpec, config: EnvConfig, evaluation: Evaluation, output: Path) -> None:
    """Draw where the episodes of an evaluation ended.

    Args:
        spec: of the environment that they were played in.
        config: resolved.
        evaluation: them.
        output: the picture, .png, .svg or .pdf; an older one is replaced.

    Raises:
        UsageError: as for `check_map`.
        RLAgentsError: the environment failed while it was played again, or the file was not
            written, though the folder could be written to.
    """
    from rlagents import plots

    check_map(spec, output)
    assert spec.draw_map is not None
    walks = [Walk(one.seed, one.actions, one.end, one.outcome) for one in evaluation.played]
    try:
        drawn = spec.draw_map(config, walks)
    except RLAgentsError:
        raise
    except Exception as error:  # somebody else's environment: whatever it raises, name it
        raise RLAgentsError(f"[env] id: {config.id} draws no map: {error!r}") from error
    title = f"{config.id}, {evaluation.checkpoint} of {Path(evaluation.run).name}"
    if evaluation.success_rate is not None:
        title += f": completed {describe_success(evaluation)}"
    figure = plots.draw_map(drawn, printable(title))
    write_whole(output, plots.render(figure, output.suffix[1:]), option="--map")
