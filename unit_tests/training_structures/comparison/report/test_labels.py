"""Names beside dots: inside of the axes, and none upon another or on a dot."""

import itertools

import pytest

from deq_fusion.training_structures.comparison.report.labels import Label, place

matplotlib = pytest.importorskip("matplotlib")


def placed(points, names=None, log=False):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*points, strict=True), "o")
    axes.margins(0.15)
    if log:
        axes.set_xscale("log")
    names = names or [f"method_{i}" for i in range(len(points))]
    labels = [Label(n, x, y, "k") for n, (x, y) in zip(names, points, strict=True)]
    notes = place(axes, labels, points)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    texts = [matplotlib.text.Text.get_window_extent(note, renderer) for note in notes]
    return axes, texts, [axes.transData.transform(point) for point in points], notes


CROWD = [(1.0, 1.0), (1.02, 1.01), (1.05, 0.99), (1.2, 1.0), (1.01, 1.05), (3.0, 0.2), (2.9, 1.2)]


@pytest.mark.parametrize("log", [False, True])
def test_no_name_lies_upon_another_nor_on_a_dot(log):
    axes, texts, dots, _ = placed(CROWD, log=log)
    for one, other in itertools.combinations(texts, 2):
        assert not one.overlaps(other)
    frame = axes.get_window_extent()
    for text in texts:
        assert frame.x0 <= text.x0 and text.x1 <= frame.x1
        assert frame.y0 <= text.y0 and text.y1 <= frame.y1
        assert not any(text.contains(*dot) for dot in dots)


def test_a_name_that_is_far_has_a_line_to_its_dot():
    _, texts, dots, notes = placed(CROWD)
    assert not placed([(0, 0), (1, 1)])[-1][0].arrow_patch.get_visible()
    lines = [note.arrow_patch.get_visible() for note in notes]
    assert any(lines) and not all(lines)


def test_where_there_is_no_room_every_name_is_there_all_the_same():
    _, texts, _, notes = placed([(0, 0)] * 40, names=["a very long name of a method"] * 40)
    assert len(notes) == len(texts) == 40
