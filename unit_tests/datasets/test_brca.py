"""MOGONET's files: read exactly, split without overlap, scaled on train only, errors that say
which file and line. Synthetic folders, and the real sets where there are any."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler

from deq_fusion.datasets.brca.get_data import (
    get_dataloader,
    read_patients,
    read_table,
    split_arrays,
    split_rows,
)
from unit_tests.real_data import real

TRAIN = [0] * 12 + [1] * 6 + [2] * 2
TEST = [0] * 4 + [1] * 3 + [2]
WIDTHS = {1: 5, 2: 3}


@pytest.fixture
def folder(tmp_path):
    """A set in MOGONET's layout: 20 and 8 patients, 3 classes, views of 5 and 3 features."""
    generator = np.random.default_rng(0)
    for part, labels in (("tr", TRAIN), ("te", TEST)):
        np.savetxt(tmp_path / f"labels_{part}.csv", labels)
        for modality, width in WIDTHS.items():
            table = generator.normal(size=(len(labels), width))
            np.savetxt(tmp_path / f"{modality}_{part}.csv", table, delimiter=",")
    return tmp_path


def load(folder, modality):
    tables = [np.loadtxt(folder / f"{modality}_{part}.csv", delimiter=",") for part in ("tr", "te")]
    return np.concatenate(tables).astype(np.float32)


def test_patients_are_read_as_numpy_reads_them(folder):
    views, labels, train_count = read_patients(folder)
    for view, modality in zip(views, WIDTHS, strict=True):
        np.testing.assert_array_equal(view, load(folder, modality), strict=True)
    np.testing.assert_array_equal(labels, np.array(TRAIN + TEST), strict=True)
    assert train_count == len(TRAIN)


def test_modalities_come_in_the_order_asked_for(folder):
    assert [view.shape[1] for view in read_patients(folder, modalities=(2, 1)).views] == [3, 5]
    assert [view.shape[1] for view in read_patients(folder, modalities=[2]).views] == [3]


def test_labels_may_be_written_as_integers(folder):
    (folder / "labels_te.csv").write_text("".join(f"{label}\r\n" for label in TEST))
    assert read_patients(folder).labels[len(TRAIN) :].tolist() == TEST


@pytest.mark.parametrize("resplit", [False, True])
def test_parts_share_no_patient_and_leave_none_out(resplit):
    labels = np.array(TRAIN + TEST)
    parts = split_rows(labels, len(TRAIN), valid_share=0.25, resplit=resplit)
    assert [len(rows) for rows in parts] == [15, 5, 8]
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))


def test_the_official_split_keeps_the_files_test_patients():
    for seed in range(5):
        train, valid, test = split_rows(np.array(TRAIN + TEST), len(TRAIN), split_seed=seed)
        assert test.tolist() == list(range(len(TRAIN), len(TRAIN + TEST)))
        assert max(*train, *valid) < len(TRAIN)


@pytest.mark.parametrize("resplit", [False, True])
def test_splits_keep_the_shares_of_the_classes(resplit):
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    labels = np.concatenate([labels, np.repeat([0, 1, 2], [50, 25, 5])])
    parts = split_rows(labels, 160, resplit=resplit)
    counts = [np.bincount(labels[rows]) for rows in parts]
    np.testing.assert_allclose(counts, [[80, 40, 8], [20, 10, 2], [50, 25, 5]], atol=1)


@pytest.mark.parametrize("resplit", [False, True])
def test_the_split_seed_alone_decides_the_split(resplit):
    labels = np.array(TRAIN + TEST)
    first, again, other = (
        np.concatenate(split_rows(labels, len(TRAIN), split_seed=seed, resplit=resplit))
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("resplit", [False, True])
def test_the_scale_is_fitted_on_train_only(folder, resplit):
    parts = split_arrays(folder, split_seed=2, resplit=resplit)
    rows = split_rows(np.array(TRAIN + TEST), len(TRAIN), split_seed=2, resplit=resplit)
    for index, modality in enumerate(WIDTHS):
        table = load(folder, modality)
        scaler = MinMaxScaler().fit(table[rows[0]])
        for (views, _), chosen in zip(parts, rows, strict=True):
            np.testing.assert_allclose(
                views[index], scaler.transform(table[chosen]), rtol=1e-4, atol=1e-5
            )
            assert views[index].dtype == np.float32
    outside = [(part[0][0] < 0).any() or (part[0][0] > 1).any() for part in parts]
    assert not outside[0] and outside[2]  # the set can tell the two scales apart


def test_a_feature_that_is_constant_in_train_becomes_zero(folder):
    table = np.loadtxt(folder / "2_tr.csv", delimiter=",")
    table[:, 1] = 0.3
    np.savetxt(folder / "2_tr.csv", table, delimiter=",")
    for views, _ in split_arrays(folder):
        assert (views[1][:, 1] == 0).all() and (views[1][:, 2] != 0).any()


def test_without_scaling_the_values_are_the_files(folder):
    views, _ = split_arrays(folder, scale=False)[2]
    np.testing.assert_array_equal(views[0], load(folder, 1)[len(TRAIN) :])


def test_loaders_serve_the_split_arrays(folder):
    arrays = split_arrays(folder, split_seed=1)
    for loader, (views, labels) in zip(get_dataloader(folder, split_seed=1), arrays, strict=True):
        (batch,) = loader
        order = batch[0][:, 0].argsort(), views[0][:, 0].argsort()
        for served, expected in zip(batch, (*views, labels), strict=True):
            torch.testing.assert_close(served[order[0]], torch.from_numpy(expected[order[1]]))
    assert [len(batch[-1]) for batch in get_dataloader(folder, batch_size=5)[2]] == [5, 3]


def test_a_missing_folder_or_file_says_where_to_get_it(folder):
    with pytest.raises(FileNotFoundError, match="deq-fusion prepare brca --data-dir .*nowhere"):
        get_dataloader(folder / "nowhere")
    (folder / "2_te.csv").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*2_te.csv; .*deq-fusion prepare brca"):
        get_dataloader(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n1,2\n", "line 2: every line must have 3 cells, as those before it, got 2"),
        ("1,2\n\n1,2,3\n", "line 3: every line must have 2 cells, as those before it, got 3"),
        ("1,2\n1,\n", "line 2: every cell must be a number, .*''"),
        ("1,2\n1,2\n1,abc\n", "line 3: every cell must be a number, .*'abc'"),
        ("1,\udcff\n", "line 1: every cell must be a number"),
        ("1,2\n1,nan\n", "line 2: every cell must be finite, got 'nan' in cell 2; fill in"),
        ("1,-inf\n1,2\n", "line 1: every cell must be finite, got '-inf' in cell 2"),
        (
            "1,1e39\n",
            "line 1: cell 2, '1e39', is finite, but float32 holds .* up to 3.4e\\+38 only",
        ),
        ("", "must hold a row of numbers a line, but it is empty"),
        ("\n\n", "must hold a row of numbers a line, but it is empty"),
    ],
)
def test_a_damaged_table_is_named_with_the_line(tmp_path, content, message):
    (tmp_path / "1_tr.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=f"1_tr.csv.*{message}"):
        read_table(tmp_path / "1_tr.csv")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("2_tr", (19, 3), "2_tr.csv .* each of the 20 lines of labels_tr.csv, got 19"),
        ("labels_te", (6, 1), "1_te.csv .* each of the 6 lines of labels_te.csv, got 8"),
        ("2_te", (8, 4), "modality 2 .* same features, got 3 and 4"),
    ],
)
def test_files_that_do_not_fit_each_other_are_named(folder, name, shape, message):
    np.savetxt(folder / f"{name}.csv", np.zeros(shape), delimiter=",")
    with pytest.raises(ValueError, match=message):
        get_dataloader(folder)


@pytest.mark.parametrize("label", ["-1", "0.5", "1,2"])
def test_a_label_must_be_an_integer_from_zero_up(folder, label):
    (folder / "labels_tr.csv").write_text(f"{label}\n" * len(TRAIN))
    with pytest.raises(ValueError, match="labels_tr.csv must hold one integer >= 0 a line"):
        get_dataloader(folder)


@pytest.mark.parametrize("label", [3, 10**6])
def test_a_class_missing_from_train_is_named(folder, label):
    np.savetxt(folder / "labels_te.csv", [*TEST[:-1], label])
    with pytest.raises(ValueError, match=f"0 to {label} .* class 3 has none"):
        get_dataloader(folder)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_valid_share_must_lie_between_0_and_1(folder, share):
    with pytest.raises(ValueError, match="valid_share must lie between 0 and 1, got"):
        get_dataloader(folder, valid_share=share)


@pytest.mark.parametrize("modalities", [(1, 4), (0,), (1, 1), ()])
def test_a_wrong_modality_is_answered_with_those_there_are(folder, modalities):
    with pytest.raises(ValueError, match=r"different numbers out of \[1, 2\]"):
        get_dataloader(folder, modalities=modalities)


REAL = {
    "rosmap": {"widths": [200, 200, 200], "rows": (245, 106), "classes": [169, 182]},
    "brca": {"widths": [645, 574, 423], "rows": (238, 103), "classes": [8, 63, 35, 169, 66]},
}


@pytest.fixture(params=sorted(REAL))
def real_set(request):
    return real(request.param)


@pytest.mark.slow
def test_the_real_set_is_what_its_description_says(real_set):
    expected = REAL[real_set.name]
    views, labels, train_count = read_patients(real_set)
    assert [view.shape for view in views] == [
        (sum(expected["rows"]), width) for width in expected["widths"]
    ]
    assert train_count == expected["rows"][0]
    for view, modality in zip(views, (1, 2, 3), strict=True):
        np.testing.assert_array_equal(view, load(real_set, modality), strict=True)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == expected["classes"]


@pytest.mark.slow
@pytest.mark.parametrize("resplit", [False, True])
def test_the_real_set_can_be_split_by_any_seed(real_set, resplit):
    _, labels, train_count = read_patients(real_set, modalities=[1])
    for seed in range(20):
        parts = split_rows(labels, train_count, split_seed=seed, resplit=resplit)
        assert sorted(np.concatenate(parts)) == list(range(len(labels)))
        assert len(parts[1]) == round(0.2 * train_count)
        assert len(parts[2]) == len(labels) - train_count
        for rows in parts:  # even BRCA's 8 Normal-like patients reach every part
            assert set(labels[rows]) == set(labels)


@pytest.mark.slow
def test_the_real_set_spans_the_unit_interval_in_train(real_set):
    *views, labels = next(iter(get_dataloader(real_set)[0]))
    for view in views:
        assert view.dtype == torch.float32 and labels.dtype == torch.int64
        assert (view.amin(0) == 0).all()
        assert ((view.amax(0) == 1) | (view.amax(0) == 0)).all()
