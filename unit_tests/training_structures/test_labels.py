"""Labels that are none are refused with their rows."""

import pytest
import torch

from deq_fusion.training_structures.labels import as_labels, check_classes, check_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.bfloat16, torch.float64]
)
def test_whole_numbers_of_any_dtype_are_labels(dtype):
    labels = as_labels(torch.tensor([0, 1, 1]).to(dtype))
    assert labels.dtype == torch.int64 and labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("value", [0.5, -0.1, NAN, INF, -INF, 1e30])
def test_other_numbers_are_not(value):
    with pytest.raises(ValueError, match=r"whole numbers, but 1 of 3 rows hold .* in row 1"):
        as_labels(torch.tensor([[0.0], [value], [2.0]]))


@pytest.mark.parametrize("value", [3, -1, -99, 2**40])
def test_classes_are_counted_from_0(value):
    labels = torch.tensor([0, 2, value, -100, value])
    with pytest.raises(ValueError, match=rf"from 0 to 2, .* 2 of 5 rows hold {value} in row 2"):
        check_classes(labels, 3)


def test_an_ignored_label_is_no_class_but_may_be_there():
    check_classes(torch.tensor([0, 2, -100]), 3)
    check_classes(torch.tensor([0, 2, 7]), 3, ignored=7)
    with pytest.raises(ValueError, match="or 7 to be ignored, but 1 of 3 rows hold -100 in row 2"):
        check_classes(torch.tensor([0, 7, -100]), 3, ignored=7)


def test_the_first_rows_are_shown():
    truth = torch.tensor([[0.0, 1.0], [NAN, INF], [0.0, NAN], [NAN, 0.0]])
    with pytest.raises(ValueError, match="3 of 4 rows hold nan in row 1, inf in row 1, nan in"):
        check_finite(truth)
