"""Numbers to pictures: figures drawn by matplotlib, without its global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

# Types of matplotlib, which is imported only when something is drawn.
Axes = Any
Figure = Any

# Okabe & Ito (2008): told apart by readers with any kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_GREY = "#666666"


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Return an empty figure of that size in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib; run `pip install brainjax[plot]`") from error
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    if title:
        made.suptitle(title, fontsize=11)
    return made


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG and return the path."""
    figure.savefig(path, dpi=150, facecolor="white")
    return path


def draw_curves(
    axes: Axes,
    curves: Float[np.ndarray, "brains points"],
    positions: Shaped[np.ndarray, " points"] | None = None,
    *,
    label: str = "",
    colour: str = COLOURS[0],
) -> None:
    """Draw one thin curve per brain and their mean.

    Args:
        axes: where.
        curves: a value for each brain and point.
        positions: of the points; 1, 2, 3 ... by default.
        label: for the legend.
        colour: of all.
    """
    if positions is None:
        positions = np.arange(1, curves.shape[1] + 1)
    axes.plot(positions, curves.T, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(positions, curves.mean(axis=0), color=colour, linewidth=2.2, label=label)
    _tidy(axes)


def draw_band(axes: Axes, low: float, high: float, label: str) -> None:
    """Shade a range of published values."""
    axes.axhspan(low, high, color=COLOURS[1], alpha=0.25, linewidth=0, label=label)


def draw_bars(
    axes: Axes,
    values: Mapping[str, Sequence[float]],
    *,
    references: Mapping[str, float] | None = None,
) -> None:
    """Draw horizontal bars of means, a dot for each brain, and lines at reference values.

    Args:
        axes: where.
        values: name to one or several values; the bar is their mean.
        references: name to a value that a dashed line marks.
    """
    for place, of_brains in enumerate(values.values()):
        mean, spread = np.mean(of_brains), np.ptp(of_brains)
        colour = COLOURS[place % len(COLOURS)]
        axes.barh(place, mean, color=colour, alpha=0.55, height=0.7)
        if spread:
            jitter = np.linspace(-0.25, 0.25, len(of_brains))
            axes.plot(of_brains, place + jitter, ".", color=colour, markersize=3)
        text = f"{mean:.3f}" + (f" ± {np.std(of_brains, ddof=1):.3f}" if spread else "")
        axes.annotate(
            text, (np.max(of_brains), place), (5, 0), textcoords="offset points", va="center"
        )
    for name, value in (references or {}).items():
        axes.axvline(value, color=_GREY, linestyle="--", linewidth=1)
        axes.annotate(name, (value, -0.62), (3, 0), textcoords="offset points", color=_GREY)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    _tidy(axes)


def draw_matrix(
    axes: Axes,
    matrix: Shaped[np.ndarray, "rows columns"],
    *,
    labels: Sequence[str],
    spec: str = ".2f",
) -> None:
    """Draw a square matrix as colours, with its numbers.

    Args:
        axes: where.
        matrix: values from 0 up.
        labels: of rows and columns.
        spec: format of the numbers.
    """
    top = max(float(matrix.max()), 1e-9)
    axes.imshow(matrix, cmap="cividis", vmin=0, vmax=top)
    for (row, column), value in np.ndenumerate(matrix):
        colour = "black" if value > 0.6 * top else "white"
        if value:
            text = format(value, spec)
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)


def draw_image(axes: Axes, image: Shaped[np.ndarray, "rows columns"], title: str = "") -> None:
    """Draw a small image, dark where values are large, without axes."""
    axes.imshow(image, cmap="Greys", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    if title:
        axes.set_title(title, fontsize=9)


def draw_signed_image(axes: Axes, image: Float[np.ndarray, "rows columns"]) -> None:
    """Draw a small image of values around 0: blue below, white at 0, red above."""
    limit = max(float(np.abs(image).max()), 1e-9)
    axes.imshow(image, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_raster(axes: Axes, fires: Bool[np.ndarray, "rounds neurons"]) -> None:
    """Draw a dot for each neuron that fires in each round.

    Args:
        axes: where.
        fires: as from `analysis.fired`; neurons are drawn from bottom to top.
    """
    rounds, neurons = np.nonzero(fires)
    # Dots that neither vanish when there are many of them, nor merge.
    size = 2.0 if len(fires) < 100 else 1.0
    axes.plot(rounds + 1, neurons, ".", color=COLOURS[0], markersize=size, markeredgewidth=0)
    axes.set_xlabel("round")
    axes.set_ylabel("neuron")
    _tidy(axes)


def _tidy(axes):
    axes.spines[["top", "right"]].set_visible(False)
