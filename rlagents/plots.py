"""Pictures of learning curves: the only module that imports matplotlib, so import it when needed.

Figures are made by matplotlib's objects, never by pyplot, which keeps a state of its own and may
open a window.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from rlagents.curves import GroupCurve, resample
from rlagents.history import Axis, History, What
from rlagents.statistics import RECENT_EPISODES, Float64Array

if TYPE_CHECKING:  # no environment is loaded to draw a curve
    from rlagents.envs.maps import EndKind, Map, MapEnd, MapPart

# Okabe and Ito (2008), without the yellow: colour-blind eyes tell them apart, too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
_DASHES = ("-", "--", "-.", ":")  # another one each time the colours begin again
_WIDTH, _HEIGHT = 8.0, 4.5  # inches
_DOTS_PER_INCH = 200
_LEGEND_LINE = 0.22  # inches
_LEGEND_CHARACTERS = 108  # that stand beside each other at that width
_MOST_MARKED_POINTS = 60
_MOST_POINTS = 1000
# Of maps: inches beside, above and below; and pixels of the level that a bar is wide.
_MAP_LEFT, _MAP_RIGHT, _MAP_TOP, _MAP_BELOW = 0.75, 0.25, 0.6, 0.55
_BARS, _BARS_ABOVE = 2.2, 0.25
_BAR = 16
_END_COLOURS: dict[EndKind, str] = {
    "completed": _COLOURS[2],
    "failed": _COLOURS[1],
    "cut off": _COLOURS[6],
}
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


def draw_map(drawn: Map, title: str) -> Figure:
    """Draw where episodes ended: for each part a histogram over its picture, aligned in x.

    The picture's pixels are those of the file, if that is one of pixels, so that a level of 3,376
    columns is as sharp as in the game.

    Args:
        drawn: the parts.
        title: of the picture.
    """
    widest = max((part.picture.shape[1] for part in drawn.parts), default=1)
    scale = _DOTS_PER_INCH if widest > _WIDTH / 2 * _DOTS_PER_INCH else _DOTS_PER_INCH / 2
    width = max(widest / scale + _MAP_LEFT + _MAP_RIGHT, _WIDTH)
    heights = [_BARS + part.picture.shape[0] / scale + _MAP_BELOW for part in drawn.parts]
    height = _MAP_TOP + sum(heights)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), facecolor=Palette.paper)
        ink = Palette.ink
        figure.text(
            _MAP_LEFT / width, 1 - 0.3 / height, title,
            fontweight="bold", color=ink, parse_math=False,
        )  # fmt: skip
        top = height - _MAP_TOP
        for part, needed in zip(drawn.parts, heights, strict=True):
            _draw_part(figure, part, (width, height), top, scale)
            top -= needed
        kinds = [kind for kind in _END_COLOURS if any(_ends(part, kind) for part in drawn.parts)]
        handles = [
            Patch(
                color=_END_COLOURS[kind],
                label=f"{drawn.words[kind]}: {sum(len(_ends(part, kind)) for part in drawn.parts)}",
            )
            for kind in kinds
        ]
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(_MAP_LEFT / width, 1 - 0.34 / height),
            borderaxespad=0.0,
            ncols=len(handles) or 1,
            labelcolor=ink,
        )
        if drawn.note:
            figure.text(
                1 - _MAP_RIGHT / width, 1 - 0.3 / height, drawn.note, color=ink, ha="right",
                fontsize=9.0, parse_math=False,
            )  # fmt: skip
    return figure


def _draw_part(
    figure: Figure, part: MapPart, size: tuple[float, float], top: float, scale: float
) -> None:
    """Draw a part of a map.

    Args:
        figure: to draw on.
        part: the part.
        size: of the figure, in inches.
        top: where the part begins, in inches from below.
        scale: pixels of the picture in an inch.
    """
    rows, columns = part.picture.shape[:2]
    left, width = _MAP_LEFT / size[0], columns / scale / size[0]
    middle = top - _BARS
    place = (left, (middle - rows / scale) / size[1], width, rows / scale / size[1])
    picture = figure.add_axes(place)
    picture.imshow(part.picture, extent=(0, columns, 0, rows), aspect="auto", interpolation="none")
    picture.set_yticks([])
    picture.grid(visible=False)
    picture.set_xlabel("x, pixels", color=Palette.ink)
    bars = figure.add_axes(
        (left, middle / size[1], width, (_BARS - _BARS_ABOVE) / size[1]), sharex=picture
    )
    bars.grid(color=Palette.grid)
    edges = np.arange(0, columns + _BAR, _BAR)
    below = np.zeros(len(edges) - 1)
    for kind, colour in _END_COLOURS.items():
        # An end may lie outside of what was seen, and is still counted.
        x = np.clip([end.x for end in _ends(part, kind)], 0, columns - 1)
        counts, _ = np.histogram(x, edges)
        bars.bar(edges[:-1], counts, _BAR, below, align="edge", color=colour, linewidth=0)
        below += counts
    bars.set_ylim(0, max(1.0, float(below.max()) * 1.05))
    bars.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    bars.tick_params(axis="x", labelbottom=False, length=0)
    bars.set_ylabel("episodes", color=Palette.ink)
    bars.set_title(part.title, loc="left", color=Palette.ink, fontsize=9.0, parse_math=False)
    picture.set_xlim(0, columns)


def _ends(part: MapPart, kind: EndKind) -> list[MapEnd]:
    return [end for end in part.ends if end.kind == kind]


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
