"""The recipe of TCGA's cohorts: BRCA's in all but the data, and what clinical columns it has."""

import hashlib
from dataclasses import fields

import pytest

from deq_fusion.datasets.tcga.cohorts import COHORTS
from deq_fusion.datasets.tcga.prepare import prepare
from deq_fusion.datasets.tcga.wheel import FILE
from deq_fusion.examples.brca.recipe import recipe as brca
from deq_fusion.examples.tcga import train
from deq_fusion.examples.tcga.recipe import recipe
from deq_fusion.examples.tcga.systems import FLOORS
from unit_tests.datasets.tcga_files import write_wheel

OWN = {"name", "modalities", "load", "metrics", "scores", "noise", "about"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tcga")
    path = write_wheel(folder / FILE)
    prepare(folder, wheel=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    return folder


@pytest.mark.parametrize("sizes", ["ours", "authors"])
def test_all_but_the_data_is_brcas(data, sizes):
    ours, theirs = recipe(data, cohort="lgg", sizes=sizes), brca(data, sizes=sizes)
    shared = {f.name for f in fields(ours)} - OWN - {"systems", "optimizer", "scheduler", "search"}
    shared -= {"build", "objective", "lacking"}
    for name in shared:
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.systems.keys() == theirs.systems.keys() and ours.floors.keys() == FLOORS.keys()
    assert {k: v for k, v in ours.shared_settings().items() if k not in OWN} == {
        k: v for k, v in theirs.shared_settings().items() if k not in OWN
    }


@pytest.mark.parametrize("cohort", COHORTS)
@pytest.mark.parametrize(("clinical", "columns"), [("none", 0), ("known", 2), ("all", None)])
def test_clinical_columns_are_a_fourth_modality_if_wanted(data, cohort, clinical, columns):
    found = recipe(data, cohort=cohort, clinical=clinical)
    views = found.loaders(0)[0].dataset.tensors[:-1]
    given_away = COHORTS[cohort].given_away
    if clinical == "none":
        assert len(found.modalities) == len(views) == 3
        assert not any("Clinical" in sentence for sentence in found.about)
        return
    expected = columns if columns is not None else 2 + len(given_away)
    assert found.modalities[3] == "clinical" and views[3].shape[1] == expected
    told = [sentence for sentence in found.about if "Clinical columns" in sentence]
    assert all(name in told[0] for name in given_away) if given_away else not told
    assert any(("left out" in each) == (clinical == "known") for each in told) or not given_away


def test_it_trains_and_says_what_is_told(data, capsys):
    arguments = ["--data-dir", str(data), "--epochs", "2", "--set", "hidden=8"]
    result = train.main([*arguments, "--set", "cohort=kipan", "--set", "clinical=known"])
    assert 0 <= result["scores"]["auc"] <= 1
    assert "TCGA KIPAN, early or late pathologic stage" in capsys.readouterr().out


def test_floors_learn_the_classes_that_the_values_go_with(data):
    found = recipe(data, cohort="brca", clinical="known")
    train_part, valid, test = found.loaders(1)
    truth = test.dataset.tensors[-1]
    for floor in found.floors.values():
        prediction = floor([train_part, valid], test)
        assert found.metrics(prediction, truth)["accuracy"] > 0.5  # chance is 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dir": None}, "data_dir .* deq-fusion prepare tcga"),
        ({"official": True}, "the cohorts have no official split"),
        ({"cohort": "luad"}, "cohort must be one of"),
        ({"clinical": "some"}, r"clinical must be one of \['none', 'known', 'all'\], got 'some'"),
        ({"sizes": "huge"}, "sizes must be one of"),
        ({"hidden": 0}, "hidden must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        recipe(**{"data_dir": "somewhere", **options})


def test_balanced_classes_count_alike_and_decide_what_is_selected(data):
    plain, balanced = recipe(data), recipe(data, balanced=True)
    assert (plain.select, balanced.select) == ("accuracy", "f1_macro")
    assert balanced.name == f"{plain.name}, classes balanced"
    assert balanced.objective.keywords == {"balanced": True}
