"""Pictures of learning curves: the only module that imports matplotlib, so import it when needed.

Figures are made by matplotlib's objects, never by pyplot, which keeps a state of its own and may
open a window.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FuncFormatter

from rlagents.curves import GroupCurve, resample
from rlagents.history import Axis, History, What
from rlagents.statistics import RECENT_EPISODES, Float64Array

# Okabe and Ito (2008), without the yellow: colour-blind eyes tell them apart, too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
_DASHES = ("-", "--", "-.", ":")  # another one each time the colours begin again
_WIDTH, _HEIGHT = 8.0, 4.5  # inches
_DOTS_PER_INCH = 200
_LEGEND_LINE = 0.22  # inches
_LEGEND_CHARACTERS = 108  # that stand beside each other at that width
_MOST_MARKED_POINTS = 60
_MOST_POINTS = 1000
_STYLE: Any = {  # Any: matplotlib's own type of it names every setting there is
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 10.0,
    "grid.linewidth": 0.7,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
}


@dataclass(frozen=True)
class Palette:
    """Colours of a picture of one run, as `#rrggbb`; `paper` may be "none"."""

    ink: str = "#333333"
    grid: str = "#e6e6e6"
    training: str = _COLOURS[0]
    evaluation: str = _COLOURS[1]
    paper: str = "#ffffff"


def draw_groups(
    groups: Sequence[GroupCurve], *, title: str, axis: Axis, what: What, center_is: str
) -> Figure:
    """Draw a curve for each group, its band over seeds and its runs as thin lines.

    Args:
        groups: in the order of the legend.
        title: of the picture.
        axis: what x is.
        what: what y is.
        center_is: the statistic's name.
    """
    several = any(len(group.runs) > 1 for group in groups)
    handles: list[Any] = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(Palette(), (_WIDTH, _HEIGHT))
        longest = max((float(group.x[-1]) for group in groups), default=0.0)
        divisor = _label_axes(axes, axis, what, longest)
        for index, group in enumerate(groups):
            colour = _COLOURS[index % len(_COLOURS)]
            dashes = _DASHES[index // len(_COLOURS) % len(_DASHES)]
            x = group.x / divisor
            few = len(x) <= _MOST_MARKED_POINTS
            if len(group.runs) > 1:
                axes.fill_between(x, group.low, group.high, color=colour, alpha=0.18, linewidth=0)
                for run in group.runs:
                    own_x, own_y = _thinned(*run)
                    axes.plot(own_x / divisor, own_y, color=colour, alpha=0.4, linewidth=0.7)
            handles += axes.plot(
                x,
                group.center,
                color=colour,
                linestyle=dashes,
                linewidth=2.0,
                marker="o" if what == "evaluation" and few else None,
                markersize=4,
                label=group.label,
            )
        if several:
            label = f"95 % interval of the {center_is}"
            handles.append(Patch(facecolor="#999999", alpha=0.35, label=label))
            handles.append(Line2D([], [], color="#777777", linewidth=0.8, label="single runs"))
        _finish(figure, axes, title, handles)
    return figure


def draw_run(
    run: History,
    *,
    axis: Axis,
    what: What,
    title: str | None = None,
    palette: Palette | None = None,
    size: tuple[float, float] = (_WIDTH, _HEIGHT),
) -> Figure:
    """Draw a run's learning curve and its evaluations, with whiskers from the worst to the best.

    Args:
        run: what is drawn.
        axis: what x is.
        what: the curve of training with the evaluations as points, or the evaluations alone.
        title: of the picture, which has a legend then, too.
        palette: the colours.
        size: width and height in inches.
    """
    colours = Palette() if palette is None else palette
    handles: list[Any] = []
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(colours, size)
        divisor = _label_axes(axes, axis, what, run.wall_time_s)
        if what == "training" and len(run.returns):
            x, y = _thinned(*run.curve("training", axis))
            label = f"training, mean of the last {RECENT_EPISODES} episodes"
            handles += axes.plot(x / divisor, y, color=colours.training, linewidth=1.8, label=label)
        rows = [row for row in run.evaluations if math.isfinite(row.mean_return)]
        if rows:
            mean = np.array([row.mean_return for row in rows])
            whiskers = [
                mean - [row.min_return for row in rows],
                [row.max_return for row in rows] - mean,
            ]
            x = np.array([row.step if axis == "steps" else row.wall_time_s for row in rows])
            handles.append(
                axes.errorbar(
                    x / divisor,
                    mean,
                    # The last bits of a mean may lie outside, and a return may be no number.
                    yerr=np.nan_to_num(np.maximum(whiskers, 0.0), posinf=0.0),
                    fmt="o" if what == "training" else "o-",
                    markersize=4.5,
                    markerfacecolor=colours.paper,
                    markeredgewidth=1.3,
                    color=colours.evaluation,
                    elinewidth=1.0,
                    label="evaluations: mean, worst and best episode",
                )
            )
        _finish(figure, axes, title, handles)
    return figure


def render(figure: Figure, ending: str, *, salt: str = "") -> bytes:
    """Return a picture as a file's content.

    Args:
        figure: the picture.
        ending: "png", "svg" or "pdf".
        salt: goes into the names inside an SVG; pictures on one page need different ones.
    """
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        date = {} if ending == "png" else {"CreationDate" if ending == "pdf" else "Date": None}
        figure.savefig(content, format=ending, dpi=_DOTS_PER_INCH, metadata=date)
    return content.getvalue()


def _figure(palette: Palette, size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained", facecolor=palette.paper)
    axes = figure.add_subplot(facecolor="none")
    axes.grid(color=palette.grid)
    axes.tick_params(color=palette.ink, labelcolor=palette.ink)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(palette.ink)
    for spine in axes.spines.values():
        spine.set_color(palette.ink)
    return figure, axes


def _thinned(x: Float64Array, y: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return a curve with no more points than a picture shows: a file of 100,000 is large."""
    if len(x) <= _MOST_POINTS:
        return x, y
    grid = np.linspace(x[0], x[-1], _MOST_POINTS)
    return grid, resample(x, y, grid)


def _label_axes(axes: Axes, axis: Axis, what: What, longest_s: float) -> float:
    """Name the axes; return what an x is divided by: readable units of time, or 1."""
    divisor, unit = 1.0, "agent steps"
    if axis == "time":
        divisor, unit = _time_unit(longest_s)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(unit)
    of_training = f"return, mean of {RECENT_EPISODES} training episodes"
    axes.set_ylabel(of_training if what == "training" else "mean return of an evaluation")
    return divisor


def _time_unit(longest_s: float) -> tuple[float, str]:
    """Return the seconds of a readable unit of time, and what the axis is called."""
    if longest_s >= 3 * 3600:
        return 3600.0, "hours of training"
    return (60.0, "minutes of training") if longest_s >= 180 else (1.0, "seconds of training")


def _finish(figure: Figure, axes: Axes, title: str | None, handles: Sequence[Any]) -> None:
    """Set what depends on everything drawn: the limits, the legend below the axes, the title."""
    axes.set_xlim(left=0)
    if not handles:
        axes.text(0.5, 0.5, "nothing to draw yet", transform=axes.transAxes, ha="center")
    if title is None:
        return
    ink = axes.xaxis.label.get_color()
    axes.set_title(title, loc="left", fontweight="bold", color=ink, parse_math=False)
    if handles:
        longest = max(len(handle.get_label()) for handle in handles)
        columns = max(1, min(len(handles), _LEGEND_CHARACTERS // (longest + 6)))
        lines = -(-len(handles) // columns)
        figure.set_size_inches(_WIDTH, _HEIGHT + _LEGEND_LINE * lines)
        legend = figure.legend(
            handles=handles, loc="outside lower left", ncols=columns, labelcolor=ink
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
