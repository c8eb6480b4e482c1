"""Figures that MultiQC does not draw: intervals and labelled points, as images inside the page."""

import base64
import io
import textwrap
from html import escape

OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800", "#000000"]

MARKERS = "osD^vP*X"


def style(place: int) -> tuple[str, str]:
    """Colour and marker of one of several models."""
    return OKABE_ITO[place % len(OKABE_ITO)], MARKERS[place % len(MARKERS)]


def image(figure, text: str) -> str:
    """An <img> of a matplotlib figure; ``text`` says in words what it shows."""
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "plumbline"}):  # same scores, same bytes
        figure.savefig(stream, format="svg", metadata={"Date": None})
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img class="pl" alt="{escape(text)}" src="data:image/svg+xml;base64,{data}">'


def wrapped(title: str, width: int) -> str:
    """A title in at most two lines of about ``width`` letters, cut with an ellipsis if it needs more."""
    return textwrap.fill(title, width, max_lines=2, placeholder=" …")


def panels(n: int, panel: tuple[float, float], border=(0.0, 0.0), columns: int = 3, sharey: bool = False) -> tuple:
    """(figure, n axes): a grid of at most ``columns`` columns. panel, border: inches (width, height) of one, and around."""
    from matplotlib.figure import Figure

    columns = min(columns, n)
    lines = -(-n // columns)
    size = (border[0] + panel[0] * columns, border[1] + panel[1] * lines)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=sharey).ravel()
    for axis in axes[n:]:
        axis.set_visible(False)
    return figure, axes[:n]


def legend_below(figure, axes, columns: int) -> None:
    """One legend below all panels, each name once, in as many columns as fit side by side."""
    handles = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    inches = 0.6 + 0.065 * max(map(len, handles), default=0)  # of a handle and its name
    columns = max(1, min(columns, int(figure.get_figwidth() / inches)))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def bare(axis) -> None:
    """An axis with a light grid and without a frame."""
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def small_panel(axis, title: str) -> None:
    """One panel of many: its title at the left, small numbers, a light grid."""
    axis.set_title(title, fontsize=8, loc="left", fontweight="bold")
    axis.tick_params(labelsize=7)
    bare(axis)


def cost_axis(axis, points, heights, room: float, words: tuple[str, str]) -> None:
    """Seconds to the right (``room``: times the longest, for the last name); names of ``points`` at ``heights``."""
    for (name, seconds), height in zip(points["seconds"].items(), heights, strict=True):
        axis.annotate(f"  {name}", (seconds, height), fontsize=8, va="center")
    axis.set_xscale("log")
    axis.set_xlim(points["seconds"].min() / 1.6, points["seconds"].max() * room)
    axis.set_xlabel(words[0], fontsize=8.5)
    axis.set_ylabel(words[1], fontsize=8.5)
    bare(axis)


def spaced(heights: list[float], least: float) -> list[float]:
    """Heights for labels: those wanted, in order, moved up where two are closer than ``least``."""
    placed: dict[int, float] = {}
    last = float("-inf")
    for index in sorted(range(len(heights)), key=lambda i: heights[i]):
        last = placed[index] = max(heights[index], last + least)
    return [placed[index] for index in range(len(heights))]
