"""A table as numbers: against scikit-learn's own pipeline, and what is refused."""

from decimal import Decimal

import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from deq_fusion.columns import Columns, as_view, present_rows


def table(rows: int = 30) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": draw.normal(50, 10, rows),
            "sex": draw.choice(["f", "m"], rows),
            "dose": draw.integers(0, 5, rows),
            "treated": draw.random(rows) > 0.5,
            "site": pd.Categorical(draw.choice(["a", "b", "c"], rows)),
        }
    )
    frame.loc[3, "age"] = np.nan
    frame.loc[4, "sex"] = None
    return frame


def test_a_table_is_what_scikit_learn_makes_of_it():
    frame = table()
    numeric, other = ["age", "dose"], ["sex", "treated", "site"]
    pipeline = ColumnTransformer(
        [
            ("numbers", make_pipeline(StandardScaler(), SimpleImputer()), numeric),
            ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), other),
        ]
    )
    expected = pipeline.fit_transform(frame)
    names = pipeline.get_feature_names_out().tolist()
    missing = [i for i, name in enumerate(names) if name.endswith(("_None", "_nan"))]
    expected = np.delete(expected, missing, axis=1)  # there a missing cell is a category
    columns = Columns("clinical").fit(frame)
    assert columns.shape == (expected.shape[1],) and columns.transform(frame).dtype == np.float32
    np.testing.assert_allclose(columns.transform(frame), expected, atol=1e-6)


def test_columns_are_found_by_name_in_any_order():
    frame, columns = table(), Columns("clinical").fit(table())
    shuffled = frame[["site", "dose", "age", "treated", "sex"]]
    np.testing.assert_array_equal(columns.transform(shuffled), columns.transform(frame))


def test_polars_frames_are_the_same():
    frame = table()
    theirs = polars.DataFrame({n: frame[n].astype(object).tolist() for n in frame}, strict=False)
    columns = Columns("clinical").fit(frame)
    np.testing.assert_allclose(columns.transform(theirs), columns.transform(frame))


def test_unknown_values_and_missing_cells_are_zeros():
    columns = Columns("clinical").fit(table())
    row = table()[:1].assign(site="new", age=np.nan, sex=None)
    (result,) = columns.transform(row)
    assert result[0] == 0 and result[2:4].sum() == 0 and result[-3:].sum() == 0
    assert result[4:6].sum() == 1


def test_words_that_were_not_there_to_learn_from_are_told_with_their_rows():
    columns, frame = Columns("clinical").fit(table()), table()
    assert columns.unseen(frame) == []
    later = frame.assign(site=["new", "far", "a", None, "new"] * 6, sex=None)
    told = "site of clinical has words that were not there to learn from, in {}; they count as"
    assert columns.unseen(later) == [told.format("18 rows: new, far") + " missing"]
    present = np.arange(30) == 1
    assert columns.unseen(later, present) == [told.format("1 row: far") + " missing"]
    later["site"] = [f"s{i}" for i in range(30)]
    assert "in 30 rows: s0, s1, s2 and 27 more;" in columns.unseen(later)[0]
    array = np.array([["a", 1.5], ["b", 2.5]], object)
    fitted = Columns("x").fit(array)
    assert "0 of x has words" in fitted.unseen(np.array([["c", 1.0], ["a", 2.0]], object))[0]
    assert "in 2 rows: 1, 2;" in fitted.unseen(np.array([[1.0, 2.0], [2.0, 2.0]]))[0]
    assert Columns("y").fit(np.eye(3)).unseen(np.eye(3)) == []


def test_columns_are_printed_in_short():
    columns = Columns("genes").fit(np.random.default_rng(0).normal(size=(9, 5000)))
    assert repr(columns) == "Columns('genes', 5000 columns, encoded as (5000,))"
    assert (
        repr(Columns("c").fit(table()))
        == "Columns('c', 5 columns, 3 of them words, encoded as (9,))"
    )


def test_whole_numbers_as_categories_are_found_again_however_they_were_read():
    given = pd.DataFrame({"ward": pd.Categorical([1, 2, 1, 2]), "x": [1.0, 2, 3, 4]})
    read = pd.DataFrame({"ward": [1.0, 2, 1, 2], "x": [1.0, 2, 3, 4]})
    columns = Columns().fit(given)
    np.testing.assert_array_equal(columns.transform(read), columns.transform(given))


def test_absent_rows_teach_nothing_and_are_zeros():
    frame, present = table(), np.arange(30) % 3 > 0
    frame.loc[~present, "age"] = 1e9
    columns = Columns().fit(frame, present)
    np.testing.assert_allclose(columns.mean, Columns().fit(frame[present]).mean)
    result = columns.transform(frame, present)
    assert (result[~present] == 0).all() and (result[present] != 0).any(axis=1).all()
    np.testing.assert_array_equal(result[present], columns.transform(frame[present]))


def test_sequences_are_scaled_over_rows_and_times():
    view = np.random.default_rng(0).normal(3, 2, (20, 7, 4))
    view[2, 3, 1] = np.nan
    columns = Columns("speech").fit(view)
    result = columns.transform(view)
    assert columns.shape == (7, 4) and result.shape == (20, 7, 4) and result[2, 3, 1] == 0
    flat = StandardScaler().fit_transform(view.reshape(-1, 4)).reshape(view.shape)
    np.testing.assert_allclose(result, np.nan_to_num(flat), atol=1e-5)


def test_what_does_not_vary_is_zeros_whatever_comes_later():
    view = np.random.default_rng(0).normal(size=(12, 3))
    view[:, 1], view[:, 2] = 0.1, np.nan
    columns = Columns().fit(view)
    result = columns.transform(np.full((2, 3), 7.0))
    assert (result[:, 1:] == 0).all() and (result[:, 0] != 0).all()


@pytest.mark.parametrize("view", [table(), np.random.default_rng(0).normal(size=(9, 4, 2))])
def test_a_state_gives_the_same_columns(view):
    columns = Columns("clinical").fit(view)
    again = Columns.of_state(columns.state())
    assert again.shape == columns.shape and again.names == columns.names
    np.testing.assert_array_equal(again.transform(view), columns.transform(view))


def test_an_array_of_text_is_a_table():
    view = np.array([["a", 1.5], ["b", 2.5], ["a", None]], object)
    columns = Columns().fit(view)
    assert columns.shape == (3,)
    np.testing.assert_array_equal(columns.transform(view)[:, 1:], [[1, 0], [0, 1], [1, 0]])


def test_present_rows():
    view = np.array([[np.nan, np.nan], [1, np.nan]])
    assert present_rows(view).tolist() == [False, True]
    assert present_rows(pd.DataFrame(view)).tolist() == [False, True]
    assert present_rows(np.zeros((2, 2), int)).tolist() == [True, True]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (np.zeros(()), "rna must have rows and columns.*shape"),
        (np.zeros((0, 3)), "rna must have rows and columns.*shape"),
        (np.array([[1.0, np.inf]]), "rna must be finite or missing.*row 0"),
        (np.zeros((2, 2), complex), "rna must hold numbers.*complex"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "rna must have different names.*'a'"),
        (pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}), "'when' of rna must hold numbers"),
        (pd.DataFrame({"id": [f"p{i}" for i in range(25)]}), "'id' of rna must repeat its values"),
    ],
)
def test_what_is_refused(view, message):
    with pytest.raises(ValueError, match=message):
        Columns("rna").fit(view)


def test_absent_in_all_rows_is_refused():
    with pytest.raises(ValueError, match="rna must have a row to learn from"):
        Columns("rna").fit(np.zeros((2, 2)), np.zeros(2, bool))


def test_other_columns_are_refused():
    columns = Columns("rna").fit(table())
    with pytest.raises(ValueError, match=r"lacks \['age'\] \(1\) and has \['years'\] \(1\)"):
        columns.transform(table().rename(columns={"age": "years"}))
    with pytest.raises(ValueError, match="rna must have 3 columns and 2 dimensions"):
        Columns("rna").fit(np.eye(3)).transform(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="'dose' of rna must hold numbers.*'much'"):
        columns.transform(table().assign(dose=["much"] * 30))
    with pytest.raises(ValueError, match="on the scale of those learnt from"):
        Columns("rna").fit(np.eye(3) * 1e-30).transform(np.eye(3) * 1e30)


def test_sparse_matrices_are_refused():
    from scipy.sparse import eye

    with pytest.raises(ValueError, match="rna must be dense"):
        as_view(eye(3).tocsr(), "rna")


def test_numbers_among_objects_are_numbers():
    rows = pd.DataFrame(
        [[Decimal("1.5"), "a", None], [None, "b", True], [Decimal(2), "a", False]], dtype=object
    )
    columns = Columns().fit(rows)
    assert sorted(columns.categories) == [1, 2]
    np.testing.assert_allclose(columns.transform(rows)[:, 0], [-1, 0, 1], atol=1e-6)


def test_cells_with_new_words_are_yielded_column_by_column():
    known = pd.DataFrame({"site": ["a", "b"] * 3, "age": range(6), "kind": ["x"] * 6})
    new = pd.DataFrame(
        {"site": ["a", "z", None, "q"], "age": range(4), "kind": ["x", "y", "x", "y"]}
    )
    present = np.array([True, True, True, False])
    found = {n: (c, w) for n, c, w in Columns("own").fit(known).new_words(new, present)}
    assert {n: w.tolist() for n, (_, w) in found.items()} == {
        "site": [False, True, False, False],
        "kind": [False, True, False, False],
    }
    assert found["site"][0][1] == "z" and found["kind"][0][1] == "y"
