"""Tables of results: they show, look up, and go to JSON and back."""

import json
import math

import numpy as np
import pytest

from deq_fusion.examples.studies.tables import (
    Bounded,
    Column,
    Interval,
    Spread,
    Table,
    read_tables,
    write_tables,
)
from deq_fusion.training_structures.files import Damaged
from unit_tests.examples.sample_tables import SHOWN, small


def test_a_table_shows_every_kind_of_cell():
    assert small().markdown({"raw, no|gate": "†"}) == SHOWN


def test_a_table_goes_to_json_and_back():
    table = small(title="what it shows")
    content = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert Table.from_json(content) == table
    assert Table.from_json(content).markdown() == table.markdown()


def test_what_is_not_finite_becomes_text_or_is_left_out():
    columns = [Column("row"), *(Column(f"column {i}", ".1f") for i in range(6))]
    cells = [math.nan, -math.inf, Spread(1, math.nan), Spread(math.nan), Interval(0, math.inf)]
    table = Table("t", columns, [["a", *cells, Bounded(2, math.nan, 3)]])
    assert table.rows[0][1:] == ("nan", "-inf", Spread(1), "nan", None, Bounded(2, None, 3))
    assert Table.from_json(json.loads(json.dumps(table.to_json(), allow_nan=False))) == table


def test_numbers_of_numpy_are_pythons():
    table = Table("t", [Column("a", "g")], [[np.float32(0.5)], [np.int64(3)]])
    assert [type(row[0]) for row in table.rows] == [float, float] and table.texts(
        table.rows[1]
    ) == ["3"]


def test_cells_are_looked_up_by_row_and_column():
    table = small()
    assert table.cell("raw, full", "accuracy") == Spread(0.774, 0.032)
    assert table.text("raw, full", "runs") == "1,234"
    part = table.part(["gate", "accuracy"], ["raw, none", "raw, full"])
    assert [column.name for column in part.columns] == ["injection", "row", "gate", "accuracy"]
    assert part.row_names == ["raw, none", "raw, full"]
    for row, column in (("full", "accuracy"), ("raw, full", "acc")):
        with pytest.raises(KeyError, match="there is no (row|column) of table 'small' named"):
            table.cell(row, column)


@pytest.mark.parametrize(
    "columns, rows, message",
    [
        ([Column("a")], [["x", "y"]], "must have 1 cells, one a column, got 2"),
        ([Column("a")], [[1.5]], "column 'a' of table 't' holds text, got 1.5; give it a form"),
        ([Column("a")], [["x"], ["x"]], "every row of table 't' .* 'x' comes twice"),
        ([Column("a"), Column("a")], [], "every column of table 't' .* 'a' comes twice"),
        ([Column("a", "g")], [[[1]]], r"a cell must be None, a text, a number or .*, got \[1\]"),
    ],
)
def test_bad_tables_are_refused(columns, rows, message):
    with pytest.raises(ValueError, match=message):
        Table("t", columns, rows)


def test_a_form_that_is_none_is_refused():
    with pytest.raises(ValueError, match="form of column 'a' must be .*, got '{}'"):
        Column("a", "{}")


@pytest.mark.parametrize(
    "content", [{}, {"name": "t"}, {**small().to_json(), "rows": [[{"mean": 1}]]}, {"columns": 3}]
)
def test_json_that_is_no_table_is_refused(content):
    with pytest.raises(ValueError, match="this is no"):
        Table.from_json(content)


def test_a_studys_tables_are_written_and_read(tmp_path):
    tables = [small(), small("other", title="another")]
    path = write_tables(tmp_path / "new", tables, command=["python", "-m", "study"], threads=2)
    made, found = read_tables(path)
    assert list(found.values()) == tables and made["command"] == ["python", "-m", "study"]
    assert {"deq-fusion", "torch", "python", "commit"} < made["made_by"].keys()
    assert "2 threads" in made["made_by"]["machine"]
    path.write_bytes(path.read_bytes().replace(b"0.774", b"0.974"))
    with pytest.raises(Damaged, match="its checksum differs"):
        read_tables(path)
