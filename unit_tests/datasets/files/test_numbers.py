"""Numbers are converted without a change of kind, or the row that cannot be is named."""

import numpy as np
import pytest

from deq_fusion.datasets.files.numbers import as_float32, as_int64, count_bytes


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g", ">f8", "?", "u1", "i8", "u8", ">i4"])
def test_numbers_of_any_kind_become_float32(dtype):
    array = np.array([[1, 0], [1, 1]], dtype)
    result = as_float32(array, "x")
    np.testing.assert_array_equal(result, np.float32([[1, 0], [1, 1]]), strict=True)
    assert (result is array) is (dtype == "f4")


def test_edges_of_float32_are_held():
    largest = float(np.finfo(np.float32).max)
    assert as_float32(np.array([largest, -largest]), "x").tolist() == [largest, -largest]
    assert as_float32(np.array([2**64 - 1], "u8"), "x").tolist() == [2.0**64]
    assert as_float32(np.zeros((0, 3)), "x").shape == (0, 3) and as_float32(2.5, "x") == 2.5


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (
            [[1.0], [np.nan], [np.inf]],
            r"x in FILE must be finite, but rows b\\x1b, c are not; fill",
        ),
        ([[1.0], [1e39], [2.0]], r"must be within 3.4e38, as float32 is, but row b\\x1b is not"),
        (np.longdouble([[1], [2], [-1e300]]), "within 3.4e38, as float32 is, but row c is not"),
        (np.float16([[1], [2], [np.inf]]), "must be finite, but row c is not"),
        ([["1"], ["2"], ["3"]], "must be numbers, got <U1"),
        ([[1j], [2], [3]], "must be numbers, got complex128"),
        ([[None], [2], [3]], "must be numbers, got object"),
        (np.array([["2020"]] * 3, "M8[D]"), "must be numbers, got datetime64"),
    ],
)
def test_what_float32_cannot_hold_is_named_by_row(values, match):
    with pytest.raises(ValueError, match=match):
        as_float32(np.array(values), "x in FILE", rows=["a", "b\x1b", "c"])


def test_many_rows_are_counted():
    with pytest.raises(ValueError, match="but rows 0, 1, 2, 3, 4 and 3 more are not"):
        as_float32(np.full(8, np.nan), "x")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, -(2**63), 2**63 - 1], [1, -(2**63), 2**63 - 1]),
        ((np.int32(4), 2), [4, 2]),
        (np.array([1.0, -(2.0**63)]), [1, -(2**63)]),
        (np.float16([2, 1024]), [2, 1024]),
        (np.longdouble([3]), [3]),
        (np.array([[7], [8]], ">u2"), [[7], [8]]),
        (np.array([2**63 - 1], "u8"), [2**63 - 1]),
        (np.array(5), 5),
        ([], []),
    ],
)
def test_whole_numbers_become_int64(values, expected):
    result = as_int64(values, "ids")
    assert result.dtype == np.int64 and result.tolist() == expected


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([1, 2**63], r"ids in FILE must be whole .*, but row b has 9223372036854775808; correct"),
        ([1, 2**63, -1], "row b has 9223372036854775808"),  # NumPy would make floats of these
        ([1, 2.0], "row b has 2.0"),
        ([True], "row a has True"),
        ([None], "row a has None"),
        (["1"], "row a has '1'"),
        ([[1], [2]], "row a has a list of 1"),
        ([1 << 9999], "row a has an integer of 10000 bits"),
        (np.array([1, 2**63], "u8"), "row b has 9223372036854775808"),
        (np.array([1, 1.5]), "row b has 1.5"),
        (np.array([[1, 2], [3, np.nan]]), "row b has nan"),
        (np.array([np.inf]), "row a has inf"),
        (np.array([2.0**63]), "row a has 9.223372036854776e[+]18"),
        (np.float16([1, np.inf]), "row b has inf"),
        (np.array([True]), "must be whole numbers, got bool"),
        (np.array([1j]), "must be whole numbers, got complex128"),
        (np.array(["1"]), "must be whole numbers, got <U1"),
        (np.array([1, None]), "must be whole numbers, got object"),
    ],
)
def test_what_int64_cannot_hold_is_named_by_row(values, match):
    with pytest.raises(ValueError, match=match):
        as_int64(values, "ids in FILE", rows=["a", "b", "c"])


def test_sizes_of_foreign_shapes():
    assert count_bytes((3, 4), 8) == 96 and count_bytes((), 4) == 4 and count_bytes((0, 9), 8) == 0
    for shape in ((0, 10**18), (10**7, 0, 10), [3], 3, None, (True,), (-1,), (2**63,), (1,) * 33):
        with pytest.raises(ValueError, match="an array's shape must"):
            count_bytes(shape, 8)
