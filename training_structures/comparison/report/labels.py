"""Names beside dots, placed so that none lies upon another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in pixels."""

RADII = 7, 13, 20, 28, 37, 47  # points from the dot, nearest first
DIRECTIONS = 90, -90, 0, 180, 45, 135, -45, -135  # degrees
LEADS = 9  # points from which on a line leads back to the dot


@dataclass(frozen=True)
class Label:
    """A text to stand beside the point (x, y) of an axes' data."""

    text: str
    x: float
    y: float
    colour: str


def place(axes: Any, labels: Sequence[Label], dots: Sequence[tuple[float, float]]) -> list[Any]:
    """Writes each label, the first one first, at the nearest place that is free; returns them.

    A place is free that lies inside of the axes, on none of the dots and on no label written
    before. Where there is none, the one with the least overlap is taken.

    Args:
        axes: whose limits and scales are final.
        labels: in the order in which they may choose.
        dots: (x, y) of everything that is not to be covered.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # which gives the axes their place
    pixel = figure.dpi / 72
    taken = [_around(axes.transData.transform(dot), 3 * pixel) for dot in dots]
    frame, written = axes.get_window_extent(renderer), []
    for label in labels:
        note = axes.annotate(
            *(label.text, (label.x, label.y), (0, 0)),
            textcoords="offset points",
            color=label.colour,
            fontsize=9,
            ha="center",
            va="center",
            arrowprops={"arrowstyle": "-", "color": label.colour, "linewidth": 0.6, "shrinkA": 0},
        )
        note.set_in_layout(False)
        size = note.get_window_extent(renderer)
        at = axes.transData.transform((label.x, label.y))
        costs: list[tuple[int, int, tuple[float, float], Box]] = []
        for dx, dy in _offsets(size.width / pixel, size.height / pixel):
            middle = at[0] + dx * pixel, at[1] + dy * pixel
            box = _box(middle, size.width, size.height)
            outside = size.width * size.height - _overlap(box, frame.extents)
            covered = sum(_overlap(box, other) for other in taken)
            costs.append((round(5 * outside + covered), len(costs), (dx, dy), box))
        _, _, offset, box = min(costs)
        note.set_position(offset)
        near = _distance(at, box) < LEADS * pixel
        note.arrow_patch.set_visible(not near)
        taken.append(box)
        written.append(note)
    return written


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Returns where a text's middle may be, seen from its dot, in points: the nearest first."""
    found = []
    for radius in RADII:
        for degrees in DIRECTIONS:
            x, y = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            aside = round(x, 9) and math.copysign(width / 2, x)
            above = round(y, 9) and math.copysign(height / 2, y)
            found.append((radius * x + aside, radius * y + above))
    return found


def _around(point: Sequence[float], radius: float) -> Box:
    return _box(point, 2 * radius, 2 * radius)


def _box(middle: Sequence[float], width: float, height: float) -> Box:
    x, y = middle
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _distance(point: Sequence[float], box: Sequence[float]) -> float:
    x = max(box[0] - point[0], 0, point[0] - box[2])
    y = max(box[1] - point[1], 0, point[1] - box[3])
    return math.hypot(x, y)
