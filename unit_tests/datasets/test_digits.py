"""The embedded digits: quadrants put together are the images, splits are disjoint and stratified;
and the shared loaders: batches are whole slices, shuffled by torch's global generator."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

from deq_fusion.datasets.digits.get_data import get_dataloader, split_arrays
from deq_fusion.datasets.loaders import make_loader, stratified_split


def images(part):
    """Puts a part's quadrants together again, in the original's scale."""
    corners = [view.reshape(-1, 4, 4) for view in part[0]]
    return 16 * np.concatenate([np.concatenate(corners[:2], 2), np.concatenate(corners[2:], 2)], 1)


def test_the_parts_hold_every_image_with_its_label_once():
    parts = split_arrays()
    found = np.concatenate([np.c_[images(part).reshape(-1, 64), part[1]] for part in parts])
    expected = np.c_[load_digits().data, load_digits().target]
    np.testing.assert_array_equal(
        sorted(map(tuple, found.tolist())), sorted(map(tuple, expected.tolist()))
    )


def test_the_split_is_60_20_20_and_keeps_the_shares_of_the_classes():
    total = np.bincount(load_digits().target)
    for part, share in zip(split_arrays(), (0.6, 0.2, 0.2), strict=True):
        assert len(part[1]) == pytest.approx(share * total.sum(), abs=1)
        np.testing.assert_allclose(np.bincount(part[1]), share * total, atol=1.5)


def test_the_split_seed_alone_decides_the_split():
    torch.manual_seed(1)
    first, again, other = (split_arrays(split_seed=seed)[2][1] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_loaders_serve_four_quadrants_and_labels():
    train, valid, test = get_dataloader(batch_size=100)
    *views, labels = next(iter(train))
    assert [view.shape for view in views] == [(100, 16)] * 4
    assert {view.dtype for view in views} == {torch.float32} and labels.dtype == torch.int64
    assert min(view.min() for view in views) == 0 and max(view.max() for view in views) == 1
    for loader, part in zip((valid, test), split_arrays()[1:], strict=True):
        torch.testing.assert_close(
            torch.cat([batch[-1] for batch in loader]), torch.from_numpy(part[1])
        )


@pytest.mark.parametrize("modalities", [(), ("upper left", "moon")])
def test_a_quadrant_that_there_is_none_of_is_answered_with_the_choices(modalities):
    with pytest.raises(ValueError, match=r"modalities must be some of \['.*got \["):
        split_arrays(modalities=modalities)


def test_no_batch_size_puts_a_part_into_one_batch():
    for loader, part in zip(get_dataloader(batch_size=None), split_arrays(), strict=True):
        assert [len(batch[-1]) for batch in loader] == [len(part[1])]


@pytest.fixture
def numbers():
    return TensorDataset(torch.arange(10.0).reshape(10, 1), torch.arange(10))


def test_batches_are_lists_of_whole_slices(numbers):
    batches = list(make_loader(numbers, batch_size=4, shuffle=False))
    assert all(isinstance(batch, list) for batch in batches)
    assert [y.tolist() for _, y in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(make_loader(numbers, batch_size=4, shuffle=False)) == 3
    for x, y in batches:
        torch.testing.assert_close(x.squeeze(1), y.float())


def test_shuffling_follows_the_global_generator(numbers):
    loader = make_loader(numbers, batch_size=4, shuffle=True)

    def order():
        return torch.cat([y for _, y in loader]).tolist()

    state = torch.get_rng_state()
    first, second = order(), order()
    assert first != second and sorted(first) == sorted(second) == list(range(10))
    torch.set_rng_state(state)
    assert [order(), order()] == [first, second]


def test_a_class_with_one_sample_is_kept():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 7])
    for seed in range(10):
        kept, held = stratified_split(labels, held_out=4, seed=seed)
        assert sorted([*kept, *held]) == list(range(9))
        assert sorted(labels[held]) == [0, 0, 1, 1]


@pytest.mark.parametrize("held_out", [0, 1, 7, 8])
def test_a_part_smaller_than_the_number_of_classes_is_an_error(held_out):
    with pytest.raises(ValueError, match=f"each of the 2 classes .* got {held_out} of 8 samples"):
        stratified_split(np.array([0, 1] * 4), held_out=held_out, seed=0)
