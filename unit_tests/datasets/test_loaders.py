"""What leaves through the shared loaders: finite numbers, of the right types, of some samples."""

import numpy as np
import pytest

from deq_fusion.datasets.loaders import check_part, cut_parts, make_loader, make_loaders, naming

ROWS = np.array([0, 1, 2]), np.array([3]), np.array([4, 5])


@pytest.fixture
def views():
    return [np.random.default_rng(0).random((6, width), dtype=np.float32) for width in (2, 3)]


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_parts_are_the_rows_of_all_views(views, dtype):
    labels = np.arange(6).astype(dtype)
    for (got, truth), rows in zip(cut_parts(views, labels, ROWS), ROWS, strict=True):
        for view, whole in zip(got, views, strict=True):
            np.testing.assert_array_equal(view, whole[rows])
        np.testing.assert_array_equal(truth, labels[rows], strict=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_leave(views, value):
    labels = np.zeros((6, 1), np.float32)
    views[1][3, 2] = value
    with pytest.raises(
        ValueError, match=r"view 2 of validation .* row 0, entry \[2\], is (nan|-?inf)"
    ):
        cut_parts(views, labels, ROWS)
    labels[5] = value
    with pytest.raises(ValueError, match="labels of test must be finite, but its row 1"):
        cut_parts(views[:1], labels, ROWS)
    with pytest.raises(ValueError, match="view 2 of validation must be finite"):
        make_loaders([([v[r] for v in views], labels[r]) for r in ROWS], batch_size=2)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, bool])
def test_views_of_another_type_do_not_leave(views, dtype):
    with pytest.raises(ValueError, match="view 1 of train must be float32, .* got"):
        cut_parts([views[0].astype(dtype)], np.zeros(6, np.int64), ROWS)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8])
def test_labels_of_another_type_do_not_leave(views, dtype):
    with pytest.raises(ValueError, match="labels of train must be float32, or int64 for classes"):
        cut_parts(views, np.zeros(6, dtype), ROWS)


def test_rows_agree_and_there_are_some(views):
    with pytest.raises(ValueError, match="view 2 of test must have 5 rows, as labels, got 6"):
        check_part(([views[0][:5], views[1]], np.zeros(5, np.int64)), "test")
    with pytest.raises(ValueError, match="train must have a sample, got none"):
        check_part(([], np.zeros(0, np.int64)), "train")
    with pytest.raises(ValueError, match="a part must have a sample, got none"):
        make_loader([], batch_size=2, shuffle=True)


@pytest.mark.parametrize("size", [0, -1, 2.5, "4"])
def test_a_wrong_batch_size_or_number_of_workers_is_answered(size):
    with pytest.raises(ValueError, match="batch_size must be a whole number from 1 up, or None"):
        make_loader(range(3), batch_size=size, shuffle=False)
    with pytest.raises(ValueError, match="workers must be a whole number from 0 up"):
        make_loader(range(3), batch_size=1, shuffle=False, workers=size if size != 0 else -2)


def test_a_view_that_never_changes_in_train_is_warned_of(views):
    views[0][ROWS[0]] = 0.5
    with pytest.warns(UserWarning, match="view 1 is the same for all 3 samples of train"):
        cut_parts(views, np.zeros(6, np.int64), ROWS)
    with pytest.warns(UserWarning, match="^data/a: view 1 is the same"):
        cut_parts(views, np.zeros(6, np.int64), ROWS, source="data/a")


def test_a_file_is_named_in_front():
    with pytest.raises(ValueError, match="^data/a: too small$"), naming("data/a"):
        raise ValueError("too small")
