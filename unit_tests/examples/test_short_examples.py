"""The short examples do what they say, in forty lines at most."""

from pathlib import Path

import pytest

from deq_fusion.examples import inside_multibench, own_dataset, own_fusion, quickstart
from deq_fusion.examples.compare_fusions import main as compare


def test_the_quickstart_learns(capsys):
    assert quickstart.main(epochs=3) > 0.6  # chance is 0.1
    assert "100.0% converged" in capsys.readouterr().out


def test_a_fusion_of_ones_own_is_compared(capsys):
    found = own_fusion.main(runs=1, epochs=1)
    assert {"Products", "deq", "concat", "only top left"} < {row.method for row in found.table()}
    assert "Products" in capsys.readouterr().out


def test_a_dataset_of_ones_own_is_compared(tmp_path, capsys):
    asked = "--dataset deq_fusion.examples.own_dataset:recipe --set width=8 --fusions sum"
    asked += f" --runs 2 --epochs 1 --output {tmp_path}"
    compare(asked.split())
    assert "only sound" in capsys.readouterr().out


def test_multibenchs_way_of_training_prints_what_it_prints_there(tmp_path, capsys):
    path = tmp_path / "best.pt"
    inside_multibench.main(epochs=1, path=str(path))
    said = capsys.readouterr().out
    assert "Epoch 0 valid loss" in said and "Inference Time" in said and path.is_file()


@pytest.mark.parametrize("module", [quickstart, own_fusion, own_dataset, inside_multibench])
def test_they_are_short(module):
    assert Path(module.__file__).read_text(encoding="utf-8").count("\n") <= 40
