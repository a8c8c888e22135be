"""The study of subsets compares every one of them, and brings their scores together."""

import json
from statistics import fmean

import pytest

from deq_fusion.examples.studies import subsets
from deq_fusion.examples.studies.tables import read_tables
from unit_tests.examples import test_recipes

omics = test_recipes.omics  # its fixture
VIEWS = ("mRNA", "methylation", "miRNA")


def asked(omics, output):
    arguments = ["--dataset", "brca", "--data-dir", str(omics), "--runs", "1", "--epochs", "1"]
    return [*arguments, "--set", "hidden=8", "--output", str(output)]


def test_every_subset_is_compared_and_kept(omics, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output = tmp_path / "out"
    found = subsets.main(asked(omics, output))
    (table,) = found.tables
    pairs = [" + ".join(pair) for pair in (VIEWS[:2], VIEWS[::2], VIEWS[1:])]
    wanted = {(" + ".join(VIEWS), name) for name in ("linear", "deq", "concat")}
    wanted |= {(pair, name) for pair in pairs for name in ("deq", "concat")}
    wanted |= {(view, "itself") for view in VIEWS}
    assert wanted <= {row[:2] for row in table.rows}
    for names in (VIEWS, VIEWS[:2]):
        files = (output / "+".join(names) / "runs").glob("deq-*.json")
        scores = [json.loads(path.read_text())["scores"]["accuracy"] for path in files]
        cell = table.cell(f"{' + '.join(names)}, deq", "accuracy")
        assert cell.mean == pytest.approx(fmean(scores)) and len(scores) == 1
    assert (output / "subsets.md").read_text() == f"{found}\n"
    assert read_tables(output / "tables.json")[1] == {"subsets": table}
    assert (output / "subsets.png").stat().st_size > 0
    assert subsets.main(asked(omics, output)) == found  # nothing is done twice


def test_the_fusions_are_listed_and_taken_either_way(omics, tmp_path, capsys):
    assert subsets.main(["--list"]) is None
    assert "concat" in capsys.readouterr().out
    arguments = [*asked(omics, tmp_path / "out"), "--modalities", "mRNA,miRNA", "--fusions=concat"]
    names = {row[1] for row in subsets.main(arguments).tables[0].rows}
    assert "concat" in names and "deq" not in names


def test_one_modality_has_no_subsets(omics, tmp_path, capsys):
    with pytest.raises(SystemExit):
        subsets.main([*asked(omics, tmp_path), "--modalities", "mRNA"])
    assert "subsets need two modalities at least, got ['mRNA']" in capsys.readouterr().err
