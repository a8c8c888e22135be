"""Tables: what arrays, frames and files hold, and what is refused."""

from decimal import Decimal

import numpy as np
import pandas as pd
import polars
import pytest
from scipy.sparse import csr_array

from deq_fusion.own_data.tables import make_table

FRAME = pd.DataFrame(
    {
        "age": [30, 41, 52],
        "dose": [0.5, None, 2.0],
        "site": ["a", None, "b"],
        "ill": [True, False, True],
    }
)


def same_cells(values):
    assert list(values.columns) == ["age", "dose", "site", "ill"]
    np.testing.assert_array_equal(values["age"], [30.0, 41.0, 52.0])
    np.testing.assert_array_equal(values["dose"], [0.5, np.nan, 2.0])
    assert values["site"].tolist() == ["a", None, "b"]
    assert values["ill"].tolist() == ["True", "False", "True"]


@pytest.mark.parametrize("kind", ["pandas", "polars", "csv", "tsv", "parquet"])
def test_a_frame_is_the_same_wherever_it_comes_from(kind, tmp_path):
    path = tmp_path / f"t.{kind}"
    given = path
    if kind == "pandas":
        given = FRAME
    elif kind == "polars":
        given = polars.from_pandas(FRAME)
    elif kind == "parquet":
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, sep={"csv": ",", "tsv": "\t"}[kind], index=False)
    table = make_table("t", given)
    same_cells(table.values)
    assert not table.is_named


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3)])
def test_arrays_are_the_same_from_memory_npy_and_npz(shape, tmp_path):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", x=array)
    np.savez(tmp_path / "two.npz", x=array, y=array[:2])
    for given in ("x.npy", "x.npz", "two.npz:x"):
        np.testing.assert_array_equal(make_table("x", f"{tmp_path}/{given}").values, array)
    assert make_table("x", array).values.dtype == np.float32
    assert make_table("x", array.astype(np.int16)).values.dtype == np.float64


def test_an_array_of_words_is_a_frame():
    table = make_table("w", np.array([["a", "1"], ["b", "2"]], dtype=object))
    assert table.columns == ["0", "1"]


def test_what_names_rows_is_kept(tmp_path):
    FRAME.set_axis(["p", "q", "r"]).to_csv(tmp_path / "t.csv")
    FRAME.set_axis(["p", "q", "r"]).to_parquet(tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", x=np.eye(3), patient=np.array(["p", "q", "r"]))
    for name in ("t.csv", "t.parquet", "t.npz"):
        table = make_table("t", tmp_path / name, id="patient")
        assert list(table.index) == ["p", "q", "r"]
    FRAME.to_csv(tmp_path / "counted.csv")  # with 0, 1, 2 in front
    table = make_table("t", tmp_path / "counted.csv")
    same_cells(table.values)
    assert table.index is None


def test_ids_keep_their_zeros(tmp_path):
    (tmp_path / "t.csv").write_text("patient,x\n007,1\n08,2\n")
    assert make_table("t", tmp_path / "t.csv", id="patient").values["patient"].tolist() == [
        "007",
        "08",
    ]


def refused(match, given, name="t"):
    with pytest.raises(ValueError, match=match):
        make_table(name, given).check_features()


def test_frames_and_arrays_that_are_no_table_are_refused():
    refused(r"t must have shape \(rows, columns\)", np.zeros(3))
    refused(
        "t must hold numbers, or words in two dimensions, got complex", np.zeros((2, 2), complex)
    )
    refused("its entry \\[1, 0\\] is infinite", np.array([[0.0], [np.inf]]))
    refused("column x of table t must hold finite", pd.DataFrame({"x": [1.0, -np.inf]}))
    refused("t must have rows and columns, got \\(0, 2\\)", np.zeros((0, 2)))
    refused("got 'x' twice", pd.DataFrame([[1, 2]], columns=["x", "x"]))
    refused(
        "column d of table t must hold numbers or words",
        pd.DataFrame({"d": pd.to_datetime(["2020-01-01"])}),
    )
    refused("named by one index, got one of 2 levels", FRAME.set_index(["age", "site"]))
    refused("t must be dense, got csr_array; .toarray()", csr_array(np.eye(3)))
    refused("got a LazyFrame; .collect()", polars.from_pandas(FRAME).lazy())


def test_numbers_with_a_word_among_them_are_refused():
    refused(
        "but 3 cells are numbers and 1 are not, such as '<5'",
        pd.DataFrame({"x": ["1", "2", "3", "<5"]}),
    )
    make_table("t", pd.DataFrame({"grade": ["1", "2", "3", "3"]}))  # all words, by their type


def test_files_that_are_no_table_are_refused(tmp_path):
    files = {
        "empty.csv": b"",
        "twice.csv": b"a,a\n1,2\n",
        "ragged.csv": b"a,b\n1,2\n1,2,3,4\n",
        "longer.csv": b"a,b\n1,2,\n3,4,\n",
        "latin.csv": "a\nä\n".encode("latin-1"),
        "t.xlsx": b"PK",
        "t.npy": b"nothing",
        "t.parquet": b"nothing",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    refused("empty.csv cannot be read as csv", tmp_path / "empty.csv")
    refused("twice.csv must have columns of different names, got 'a' twice", tmp_path / "twice.csv")
    refused("ragged.csv cannot be read as csv", tmp_path / "ragged.csv")
    refused(
        "longer.csv cannot be read as csv: every line must have as many", tmp_path / "longer.csv"
    )
    refused("latin.csv cannot be read as csv", tmp_path / "latin.csv")
    refused(
        "must end in one of .csv, .tsv, .parquet, .npy, .npz, got '.*t.xlsx'",
        tmp_path / "t.xlsx",
    )
    refused("t.npy cannot be read as npy", tmp_path / "t.npy")
    refused("t.parquet cannot be read as parquet", tmp_path / "t.parquet")
    refused("only npz files hold several tables", f"{tmp_path}/twice.csv:a")
    with pytest.raises(FileNotFoundError, match="there is no file .*none.csv; name one"):
        make_table("t", tmp_path / "none.csv")


def test_no_file_runs_code(tmp_path):
    np.save(tmp_path / "o.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    refused("o.npy cannot be read as npy", tmp_path / "o.npy")


def test_an_npz_file_of_several_arrays_needs_a_name(tmp_path):
    np.savez(tmp_path / "two.npz", x=np.eye(2), y=np.eye(2))
    refused(r"holds the arrays \['x', 'y'\]; name one as .*two.npz:x", tmp_path / "two.npz")
    refused(r"holds the arrays \['x', 'y'\]", f"{tmp_path}/two.npz:z")


def test_text_that_was_saved_as_objects_is_told_how_to_be_saved(tmp_path):
    np.savez(tmp_path / "o.npz", x=np.eye(2), sample=np.array(["a", "b"], dtype=object))
    refused(r"array sample of .*o.npz must hold .* save text as names.astype", tmp_path / "o.npz")


@pytest.mark.parametrize("module", ["pyarrow", "polars"])
def test_what_is_not_installed_is_named(module, tmp_path, monkeypatch):
    FRAME.to_parquet(tmp_path / "t.parquet")
    given = tmp_path / "t.parquet" if module == "pyarrow" else polars.from_pandas(FRAME)

    def lacking(*args, **kwargs):
        raise ImportError("no pyarrow")

    monkeypatch.setattr(pd, "read_parquet", lacking)
    monkeypatch.setattr(polars.DataFrame, "to_pandas", lacking)
    refused("pip install pyarrow", given)


def test_numbers_among_objects_are_numbers():
    mixed = pd.DataFrame({"dose": [1.5, None, 2], "count": [1, 2, None], "dear": [Decimal(1)] * 3})
    table = make_table("t", mixed.astype(object).where(mixed.notna(), None))
    assert (table.values.dtypes == np.float64).all() and not table.doubts
    np.testing.assert_array_equal(table.values["dose"], [1.5, np.nan, 2.0])
    switches = make_table("t", pd.DataFrame({"on": [True, None]}, dtype=object))
    assert switches.values["on"].tolist() == ["True", None]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "a,b\n1,2,3\n4,5\n", "as many cells as the first, but some have more"),
        ("t.csv", "a,b\n1,2,\n4,5,\n", "as many cells as the first, but some have more"),
        ("t.csv", "a;b\n1;2\n", "separated by ',', but seem to be by ';'; .* pandas.read_csv"),
        ("t.csv", "a\tb\n1\t2\n", "separated by ',', but seem to be by"),
        ("t.tsv", "a,b\n1,2\n", "but seem to be by ','"),
    ],
)
def test_lines_that_are_cut_elsewhere_are_refused(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        make_table("t", tmp_path / name)


def test_a_first_column_without_a_name_is_the_index(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\nx,1,2\ny,3,4\n")  # as R writes it
    table = make_table("t", tmp_path / "t.csv")
    assert table.index.tolist() == ["x", "y"] and table.values["b"].tolist() == [2.0, 4.0]


def test_decimal_commas_are_doubted(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\n1,5\tx,y\n2\tz\n\tz\n")
    table = make_table("t", tmp_path / "t.tsv")
    assert list(table.doubts) == ["a"] and "has a comma, as in '1,5'" in table.doubts["a"]
