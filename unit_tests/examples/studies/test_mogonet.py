"""The study of MOGONET by its authors' protocol: all of train, the last epoch, test read once."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from deq_fusion.examples.studies import mogonet
from deq_fusion.examples.studies.tables import read_tables
from unit_tests.examples import test_examples

omics = test_examples.omics  # its fixture: the first view tells the class


def asked(omics, output, *more):
    return ["--data-dir", str(omics), "--runs", "2", "--epochs", "30", *more, "--output", output]


@pytest.mark.parametrize("scaled", [False, True])
def test_the_parts_are_the_files_and_scaled_by_train_alone(omics, scaled):
    train, test = mogonet.load(omics, scaled=scaled)
    parts = {name: np.loadtxt(omics / f"2_{name}.csv", delimiter=",") for name in ("tr", "te")}
    low, high = parts["tr"].min(0), parts["tr"].max(0)
    for loader, part in ((train, "tr"), (test, "te")):
        wanted = (parts[part] - low) / (high - low) if scaled else parts[part]
        np.testing.assert_allclose(loader.dataset.tensors[1], wanted, rtol=1e-5, atol=1e-6)


def test_scores_are_those_of_scikit_learn(omics):
    torch.manual_seed(0)
    logits, truth = torch.randn(20, 2), torch.arange(20) % 2
    found, guess = mogonet.scores(logits, truth), logits.argmax(1)
    assert found["f1"] == pytest.approx(f1_score(truth, guess))
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert found["auc"] == pytest.approx(roc_auc_score(truth, logits.softmax(1)[:, 1]))


def test_it_trains_to_the_end_and_goes_on_where_it_stopped(omics, tmp_path, capsys):
    output = str(tmp_path / "out")
    found = mogonet.main(asked(omics, output))
    (table,) = found.tables
    assert [row[0] for row in table.rows] == ["transductive", "inductive", "published"]
    assert table.cell("published", "accuracy").__class__ is float
    assert table.cell("transductive", "AUC").mean > 0.9  # the first view tells the class
    assert read_tables(tmp_path / "out" / "tables.json")[1] == {"mogonet": table}
    again = mogonet.main(asked(omics, output))  # of checkpoints, nothing is trained
    assert again.tables[0] == table
    torch.manual_seed(1)  # whatever the generator's state, a seed gives the same
    alone = mogonet.measure(mogonet.load(omics, scaled=False), 1, 30, tmp_path / "alone")
    both = [
        mogonet.measure(mogonet.load(omics, scaled=False), s, 30, tmp_path / "x") for s in (0, 1)
    ]
    for graph, scores in alone.items():
        mean = (both[0][graph]["accuracy"] + scores["accuracy"]) / 2
        assert table.cell(graph, "accuracy").mean == pytest.approx(mean)


@pytest.mark.parametrize("other", [["--scaled"], ["--epochs", "36"]])
def test_a_training_of_other_data_or_epochs_is_not_gone_on_with(omics, tmp_path, other, capsys):
    output = str(tmp_path / "out")
    mogonet.main(asked(omics, output))
    with pytest.raises(SystemExit):
        mogonet.main(asked(omics, output, *other))
    assert "must come from a run with the same settings" in (error := capsys.readouterr().err)
    assert "name another folder (--output)" in error
