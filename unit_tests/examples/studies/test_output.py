"""A study's tables join, and its pictures do not make more of a number than it is."""

import pytest

from deq_fusion.examples.studies.drawing import (
    METHODS,
    around_zero,
    from_zero,
    looks_of,
    make_figure,
)
from deq_fusion.examples.studies.output import stacked
from deq_fusion.examples.studies.tables import Column, Table
from deq_fusion.training_structures.comparison import Score


def test_tables_are_stacked_with_the_columns_that_any_of_them_has():
    first = Table("a", [Column("row"), Column("x", ".0f")], [["r", 1], ["s", 2]])
    second = Table("b", [Column("row"), Column("y", ".0f")], [["r", 3]])
    both = stacked("both", {"one": first, "two": second}, "part", title="two parts")
    assert [column.name for column in both.columns] == ["part", "row", "x", "y"]
    assert both.rows == (("one", "r", 1, None), ("one", "s", 2, None), ("two", "r", None, 3))
    assert both.keys == 2 and both.cell("two, r", "y") == 3


def test_a_method_looks_the_same_beside_whatever_it_is_drawn():
    alone, beside = looks_of(["deq"]), looks_of(["concat", "own", "deq", "another"])
    assert alone["deq"] == beside["deq"]
    assert len({look["color"] for look in beside.values()}) == 4
    assert METHODS["deq"] == METHODS["full"] == METHODS["no_penalty"]


@pytest.mark.parametrize(
    ("score", "limits"),
    [
        (Score("accuracy"), (0, 100)),
        (Score("mae", lower=True, percent=False), (0, 1.05 * 66)),
        (Score("corr", percent=False), (0, 1.05 * 66)),
    ],
)
def test_scores_begin_at_zero(score, limits):
    pytest.importorskip("matplotlib")
    _, (axes,) = make_figure(1)
    axes.plot([60, 66], [0, 0])
    from_zero([axes], score)
    assert axes.get_xlim() == pytest.approx(limits)


def test_differences_lie_around_zero_and_small_ones_look_small():
    pytest.importorskip("matplotlib")
    for change, reach in ((0.1, 1.0), (-4, 4.2)):
        _, panels = make_figure(2)
        panels[0].plot([0, change], [0, 0])
        around_zero(panels, Score("accuracy"))
        assert [each.get_xlim() for each in panels] == [pytest.approx((-reach, reach))] * 2
