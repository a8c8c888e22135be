"""Numbers as text: what is one, what a table of them is, and how all else is named."""

import csv
import os
import random
import re

import numpy as np
import pytest

from deq_fusion.datasets.files import tables
from deq_fusion.datasets.files.tables import read_numbers, to_number


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("text", ["3", "-0.5", "+.5", "1.", "1e-3", "1E+05", " 2 ", "0010", "-0"])
def test_a_decimal_number_is_read_as_python_reads_it(text):
    assert to_number(text) == float(text)


@pytest.mark.parametrize(
    "text", ["", " ", "٣", "１", "1_0", "0x1F", "1,5", "1 2", "1d3", "--1", "e5", "1e", '"1"', "²"]
)
def test_what_python_takes_beyond_decimal_numbers_is_none(text):
    with pytest.raises(ValueError, match="must be a number, as 3, -0.5 or 1e-3, got"):
        to_number(text)


@pytest.mark.parametrize("text", ["nan", "-inf", "Infinity", "NA", "null"])
def test_what_is_missing_is_no_number(text):
    with pytest.raises(ValueError, match=f"must be finite, got '{text}'"):
        to_number(text)


def by_hand(path):
    with path.open(encoding="utf-8-sig", newline=None) as file:
        return np.array([[float(cell) for cell in row] for row in csv.reader(file) if row])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_table_is_read_with_any_line_ends(write, end, last, mark, dtype):
    rows = ["1,2.5,-3e-2", " 4 , 5,6", "", "7,8,9e30"]
    path = write(mark + (end.join(rows) + (end if last else "")).encode())
    np.testing.assert_array_equal(read_numbers(path, dtype=dtype), by_hand(path).astype(dtype))
    assert read_numbers(path, dtype=dtype).dtype == dtype


def test_lines_over_many_blocks_are_read_in_order(write):
    table = np.random.default_rng(0).normal(size=(700, 30))
    path = write("\n".join(",".join(map(repr, row)) for row in table.tolist()))
    assert path.stat().st_size > 10 * tables.BLOCK
    np.testing.assert_array_equal(read_numbers(path, dtype=np.float64), table)
    np.testing.assert_array_equal(read_numbers(path), table.astype(np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2\n3,٤\n", "line 2: every cell must be a number, .* in cell 2"),
        ("1,2\n3,4_0\n", "line 2: .* got '4_0' in cell 2; get it again"),
        ("1,2\n3,\n", "line 2: .* got '' in cell 2"),
        ("gene a,gene b\n1,2\n", "line 1: .*; if this line is a header, take it out"),
        (",0,1\n0,2,3\n", "line 1: .* got '' in cell 1"),
        ("TCGA-1,0.5,2\nTCGA-2,1,1\n", "line 1: .*first column names the rows, take it out"),
        ('"1","2"\n', "line 1: .* write numbers without quotes"),
        ("1;2\n3;4\n", "line 1: .* separate the cells by commas, and write decimals with a point"),
        ("1\t2\n", "line 1: .* separate the cells by commas"),
        ("1 2\n", "line 1: .* separate the cells by commas"),
        ("1,2\nNA,2\n", "line 2: every cell must be finite, got 'NA' in cell 1; .*names the rows"),
        ("1,2\n1,nan\n", "line 2: .* got 'nan' in cell 2; fill in or leave out what is missing"),
        ("1,2\x00\n", "line 1: .* is it UTF-16"),
        ("1,2\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("1,2\n1,\x1b[31m3\n", re.escape(r"got '\x1b[31m3' in cell 2")),
        ("1,2\n3,4,5\n", "line 2: every line must have 2 cells, as those before it, got 3"),
        ("1,2\n-1e39,4\n", r"line 2: cell 1, '-1e39', is finite, but float32 .* 3.4e\+38 only"),
        ("1e999\n", r"cell 1, '1e999', is finite, but float32"),
        ("\n \n\r\n", "must hold a row of numbers a line, but it is empty"),
    ],
)
def test_what_is_no_table_of_numbers_is_named_with_the_way_out(write, content, message):
    with pytest.raises(ValueError, match=f"table.csv.*{message}"):
        read_numbers(write(content))


def test_float64_holds_more(write):
    assert read_numbers(write("1e39\n"), dtype=np.float64).tolist() == [[1e39]]
    with pytest.raises(ValueError, match="float64 holds numbers up to 1.8e"):
        read_numbers(write("1e309\n"), dtype=np.float64)


@pytest.mark.parametrize("content", ["1\n" * 40, "1," * 40 + "1", "1" * 400, "\n" * 40])
def test_a_table_beyond_the_bounds_is_refused(write, monkeypatch, content):
    for name, most in (("MOST_LINES", 30), ("MOST_COLUMNS", 30), ("MOST_CHARACTERS", 300)):
        monkeypatch.setattr(tables, name, most)
    with pytest.raises(ValueError, match=r"table.csv, line \d+: a table must have at most 30 lin"):
        read_numbers(write(content))


def test_a_missing_file_a_folder_and_a_pipe_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*a.csv; ask Ann"):
        read_numbers(tmp_path / "a.csv", advice="ask Ann")
    with pytest.raises(ValueError, match="must be a file, but is a folder"):
        read_numbers(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="must be a file, but is a pipe"):
        read_numbers(tmp_path / "pipe")


def test_a_mutated_table_is_refused_or_read_as_a_second_reader_reads_it(write):
    draw = random.Random(0)
    whole = "\n".join(",".join(f"{draw.gauss(0, 9):.4g}" for _ in range(4)) for _ in range(6))
    pieces = ["nan", "1_0", "٣", "\t", ",", "\n", '"', "\r", "\ufeff", "0x", ";", "e", "-", "\0"]
    for _ in range(200):
        text = list(whole)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(text))
            text[at : at + draw.choice([0, 1, 1, 9])] = draw.choice(
                [*pieces, "", chr(draw.randrange(256))]
            )
        path = write("".join(text))
        try:
            table = read_numbers(path, dtype=np.float64)
        except ValueError as error:
            assert type(error) is ValueError and str(error).startswith(str(path))
        else:
            np.testing.assert_array_equal(table, by_hand(path))
