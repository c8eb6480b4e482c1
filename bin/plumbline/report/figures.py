"""Figures that MultiQC does not draw: intervals and labelled points, as images inside the page."""

import base64
import io
import textwrap
from html import escape

OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800", "#000000"]


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


def bare(axis) -> None:
    """An axis with a light grid and without a frame."""
    axis.grid(color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def spaced(heights: list[float], least: float) -> list[float]:
    """Heights for labels: those wanted, in order, moved up where two are closer than ``least``."""
    placed: dict[int, float] = {}
    last = float("-inf")
    for index in sorted(range(len(heights)), key=lambda i: heights[i]):
        last = placed[index] = max(heights[index], last + least)
    return [placed[index] for index in range(len(heights))]
