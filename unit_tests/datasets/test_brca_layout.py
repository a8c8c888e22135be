"""Layouts beside MOGONET's: indices and headers of numbers, numbers of views, labels, copies."""

import re
import warnings

import numpy as np
import pytest

from deq_fusion.datasets.brca.get_data import get_dataloader, read_patients, split_arrays

COUNTS = {"tr": 40, "te": 20}


@pytest.fixture
def tables():
    """Three views of noise for 40 and 20 patients; the rows lie by class."""
    rng = np.random.default_rng(0)
    return {
        f"{view}_{part}": rng.random((count, 5)).round(4)
        for view in (1, 2, 3)
        for part, count in COUNTS.items()
    }


@pytest.fixture
def write(tmp_path, tables):
    def write(**changes):
        classes = {
            f"labels_{part}": np.repeat([0, 1], count // 2) for part, count in COUNTS.items()
        }
        for name, table in (classes | tables | changes).items():
            rows = (
                table
                if isinstance(table, list)
                else [
                    ",".join(map(str, row)) for row in np.reshape(table, (len(table), -1)).tolist()
                ]
            )
            (tmp_path / f"{name}.csv").write_text("\n".join(map(str, rows)) + "\n")
        return tmp_path

    return write


def indexed(tables, numbers, *, last=False):
    """The files of view 2 with a column of numbers, of train and of test."""
    pairs = zip(COUNTS, numbers, strict=True)
    return {
        f"2_{part}": np.column_stack(
            [tables[f"2_{part}"], column] if last else [column, tables[f"2_{part}"]]
        )
        for part, column in pairs
    }


SHUFFLED = np.random.default_rng(1).permutation(60)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "numbers",
    [
        (np.arange(40), np.arange(20)),
        (np.arange(1, 41), np.arange(1, 21)),
        (np.arange(40), np.arange(40, 60)),
        (np.arange(40)[::-1], np.arange(20)),
        (SHUFFLED[:40], SHUFFLED[40:]),  # as a random split leaves it
        (np.random.default_rng(2).permutation(40), np.arange(20)),
    ],
)
def test_a_column_that_counts_the_patients_is_refused(write, tables, numbers, last):
    name = "last" if last else "first"
    with pytest.raises(ValueError, match=f"the {name} column of modality 2 .* looks like an index"):
        split_arrays(write(**indexed(tables, numbers, last=last)))


def test_numbers_of_patients_are_warned_of(write, tables):
    ids = np.random.default_rng(3).choice(9000, 60, replace=False) + 1000
    with pytest.warns(UserWarning, match="first column of modality 2 .* another whole number for"):
        views = read_patients(write(**indexed(tables, (ids[:40], ids[40:])))).views
    assert views[1].shape == (60, 6)


@pytest.mark.parametrize("rows", [range(60), range(59, -1, -1)])
def test_ranks_and_counts_are_features(write, tables, rows):
    ranks = np.argsort(np.random.default_rng(4).random((60, 5)), axis=0)
    ranks[:, 0] = rows
    counts = np.random.default_rng(5).poisson(40, (60, 5))
    folder = write(
        **{"1_tr": ranks[:40], "1_te": ranks[40:], "2_tr": counts[:40], "2_te": counts[40:]}
    )
    np.testing.assert_array_equal(read_patients(folder).views[0], ranks)
    np.testing.assert_array_equal(read_patients(folder).views[1], counts)


@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("width", [2, 5])
def test_a_header_of_numbers_is_refused(write, tables, start, width):
    """Labels with a header too: 41 rows of each, which agree."""
    header = start + np.arange(width)
    changes = {
        "1_tr": np.vstack([header, tables["1_tr"][:, :width]]),
        "1_te": tables["1_te"][:, :width],
    }
    folder = write(**changes, labels_tr=[0, *np.repeat([0, 1], 20)])
    message = f"first line of .*1_tr.csv numbers the columns, {start} to {header[-1]}, as a header"
    with pytest.raises(ValueError, match=message):
        get_dataloader(folder)


def test_a_first_patient_of_whole_numbers_among_others_is_read(write):
    rng = np.random.default_rng(0)
    for width in (2, 3):
        mutations = rng.integers(0, 3, (40, width))
        mutations[0] = range(width)
        folder = write(**{"1_tr": mutations, "1_te": rng.integers(0, 3, (20, width))})
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            np.testing.assert_array_equal(read_patients(folder).views[0][:40], mutations)
        assert [re.search("as a header", str(w.message)) is not None for w in told] == [True] * (
            width - 2
        )


def test_a_header_in_one_file_alone_is_guessed_from_the_rows(write):
    with pytest.raises(
        ValueError, match="1_tr.csv .* 41 lines .* got 40; if one of the two has a header"
    ):
        get_dataloader(write(labels_tr=[0, *np.repeat([0, 1], 20)]))


@pytest.mark.parametrize("name", ["01_tr.csv", "٣_tr.csv", "１_te.csv", "²_tr.csv"])
def test_a_view_is_numbered_in_plain_digits(write, name):
    folder = write()
    (folder / name).write_text("1\n")
    with pytest.raises(
        ValueError, match=f"numbered 1, 2, ..., got {re.escape(ascii(name))}; rename"
    ):
        get_dataloader(folder)


@pytest.mark.parametrize("part", ["tr", "te"])
def test_a_view_with_one_file_is_not_left_out(write, part):
    folder = write()
    (folder / f"4_{part}.csv").write_text("1\n" * COUNTS[part])
    missing = {"tr": "te", "te": "tr"}[part]
    with pytest.raises(FileNotFoundError, match=f"no file .*4_{missing}.csv; get it with"):
        get_dataloader(folder)
    assert len(read_patients(folder, modalities=(1, 2)).views) == 2


def test_names_of_features_and_of_patients_are_left_alone(write):
    folder = write()
    (folder / "1_featname.csv").write_text("TP53\n")
    (folder / "barcodes_tr.csv").write_text("TCGA\n")
    assert len(read_patients(folder).views) == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5] * 40, "one integer >= 0 a line, .* label 1 is 0.5"),
        ([0] * 39 + [0.99999999], "label 40 is 0.99999999"),  # 1 in float32
        ([0] * 39 + [-1], "label 40 is -1"),
        ([0] * 39 + [10**18], "below 16,777,216; label 40 is 1e"),
        (["0,1"] * 40, "one integer >= 0 a line, got 2 columns"),
        (["label", *[0] * 40], "line 1: .* if this line is a header, take it out"),
        ([0] * 39 + ["١"], "line 40: every cell must be a number"),
        (range(40), "has another class on each of its 40 lines, as an index does"),
    ],
)
def test_what_is_no_class_is_named(write, labels, message):
    with pytest.raises(ValueError, match=f"labels_tr.csv.*{message}"):
        get_dataloader(write(labels_tr=list(labels)))


def test_labels_that_begin_at_one_are_refused(write):
    changes = {f"labels_{part}": np.repeat([1, 2], count // 2) for part, count in COUNTS.items()}
    with pytest.raises(ValueError, match="0 to 2 must have .* class 0 has none; count from 0"):
        get_dataloader(write(**changes))


def test_patients_of_train_in_test_are_warned_of(write, tables):
    copies = {f"{view}_te": tables[f"{view}_te"].copy() for view in (1, 2, 3)}
    for view in (1, 2, 3):
        copies[f"{view}_te"][[3, 7]] = tables[f"{view}_tr"][[30, 2]]
    with pytest.warns(UserWarning, match="2 of the 20 test patients in .* in all views"):
        read_patients(write(**copies))
    copies["3_te"] += 1  # alike in two views of three
    read_patients(write(**copies))


@pytest.mark.parametrize("value", [3.3e38, 1e-40])
def test_a_scale_that_leaves_float32_is_refused(write, tables, value):
    train, test = tables["1_tr"].copy(), tables["1_te"].copy()
    train[:, 2] = np.where(np.arange(40) % 2, value, -value)
    test[5, 2] = 1e30
    with pytest.raises(ValueError, match="view 1 of .* must be finite, .* float32; rescale"):
        split_arrays(write(**{"1_tr": train, "1_te": test}))


def test_a_view_without_any_difference_is_warned_of(write):
    with pytest.warns(UserWarning, match="view 2 is the same for all 32 samples of train"):
        split_arrays(write(**{"2_tr": np.full((40, 5), 0.5), "2_te": np.ones((20, 5))}))
