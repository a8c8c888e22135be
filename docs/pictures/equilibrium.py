"""The picture of the fusion: features, the equilibria that they lead to, and the gate between.

python docs/pictures/equilibrium.py          writes equilibrium.svg beside itself
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

TEXT, IMAGE, FUSED = "#2f6fb3", "#c8741a", "#3d8a5a"
INK, QUIET, PAPER = "#24292f", "#6a737d", "#ffffff"
RADIUS = 0.62
STYLE = {
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavuserif",
    "svg.hashsalt": "equilibrium",  # so that the same script writes the same file
}


def state(axes: Axes, at: tuple[float, float], name: str, map_name: str, colour: str) -> None:
    """Draws a state that its own map drives to rest: a circle with a loop above it."""
    x, y = at
    loop = FancyArrowPatch(
        (x - 0.30, y + RADIUS - 0.07),
        (x + 0.30, y + RADIUS - 0.07),
        connectionstyle="arc3,rad=-1.9",
        arrowstyle="-|>",
        mutation_scale=15,
        linewidth=1.8,
        color=colour,
        zorder=1,
    )
    axes.add_patch(loop)
    axes.add_patch(Circle(at, RADIUS, facecolor=colour, edgecolor=PAPER, linewidth=2, zorder=2))
    axes.text(x, y, name, color=PAPER, size=21, ha="center", va="center", zorder=3)
    axes.text(x + 0.62, y + RADIUS + 0.28, map_name, color=colour, size=16, va="center")


def feature(axes: Axes, at: tuple[float, float], name: str, what: str, colour: str) -> None:
    """Draws the features of a modality: a column of cells, as a vector is drawn."""
    x, y = at
    for i, shade in enumerate((0.85, 0.35, 0.6, 1.0, 0.45)):
        cell = FancyBboxPatch(
            (x - 0.19, y - 0.90 + 0.36 * i),
            0.38,
            0.36,
            boxstyle="square,pad=0",
            facecolor=colour,
            alpha=shade,
            edgecolor=PAPER,
            linewidth=1.5,
        )
        axes.add_patch(cell)
    axes.text(x - 0.42, y + 0.16, name, color=colour, size=19, ha="right", va="center")
    axes.text(x - 0.42, y - 0.30, what, color=QUIET, size=11.5, ha="right", va="center")


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style) -> None:
    """Draws an arrow; `bend` is its curvature."""
    bend = style.pop("bend", 0.0)
    style = {"color": INK, "linewidth": 1.6, "mutation_scale": 15, "arrowstyle": "-|>"} | style
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **style))


def draw(axes: Axes) -> None:
    """Draws all of it, from the features on the left to the fused one on the right."""
    top, middle, bottom = 4.4, 2.45, 0.5
    feature(axes, (2.0, top), "$x_1$", "text", TEXT)
    feature(axes, (2.0, bottom), "$x_2$", "image", IMAGE)
    state(axes, (4.3, top), "$z_1$", "$f_1$", TEXT)
    state(axes, (4.3, bottom), "$z_2$", "$f_2$", IMAGE)
    state(axes, (8.9, middle), "$z$", r"$f_{\mathrm{fuse}}$", FUSED)

    arrow(axes, (2.35, top), (3.62, top), color=TEXT)
    arrow(axes, (2.35, bottom), (3.62, bottom), color=IMAGE)

    gate = (6.6, middle)
    axes.add_patch(Circle(gate, 0.42, facecolor=PAPER, edgecolor=INK, linewidth=1.8, zorder=2))
    axes.text(*gate, r"$\odot$", color=INK, size=20, ha="center", va="center", zorder=3)
    axes.text(gate[0], middle + 0.72, "gate", color=QUIET, size=11.5, ha="center", va="center")
    arrow(axes, (4.90, top - 0.25), (6.28, middle + 0.36), color=TEXT, bend=-0.12)
    arrow(axes, (4.90, bottom + 0.25), (6.28, middle - 0.36), color=IMAGE, bend=0.12)
    arrow(axes, (7.04, middle), (8.22, middle), color=INK)
    arrow(axes, (8.46, middle - 0.50), (6.90, middle - 0.36), color=FUSED, bend=-0.35)

    for y, colour, bend in ((top, TEXT, 0.12), (bottom, IMAGE, -0.12)):
        arrow(axes, (2.35, y - 0.35 if y > middle else y + 0.35), (2.98, middle), color=colour,
              bend=bend, arrowstyle="-", alpha=0.75)  # fmt: skip
    axes.text(3.1, middle, r"$x_{\mathrm{fuse}} = w_1 x_1 + w_2 x_2$", color=INK, size=13.5,
              va="center")  # fmt: skip
    arrow(axes, (8.9, 0.75), (8.9, middle - RADIUS - 0.04), color=INK)
    axes.text(8.9, 0.46, r"$x_{\mathrm{fuse}}$", color=INK, size=15, ha="center", va="center")

    told = "A loop: the map is applied again\nuntil its state no longer moves."
    axes.text(8.1, 5.15, told, color=QUIET, size=12, va="center", linespacing=1.5)
    arrow(axes, (9.56, middle), (10.9, middle), color=FUSED, linewidth=2.4, mutation_scale=20)
    axes.text(11.05, middle + 0.16, "fused", color=FUSED, size=14, va="center")
    axes.text(11.05, middle - 0.22, "feature", color=FUSED, size=14, va="center")


def main() -> None:
    """Writes the picture."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(10.4, 5.0), facecolor=PAPER)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0.6, 12.2), ylim=(-0.6, 5.98))
        axes.set_aspect("equal")
        axes.set_axis_off()
        draw(axes)
        figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
