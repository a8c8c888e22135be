"""The short scripts under torchrun and in mixed precision."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deq_fusion.examples.digits import recipe as digits
from deq_fusion.examples.digits import train
from deq_fusion.fusions.registry import FUSIONS
from deq_fusion.training_structures.comparison.methods import Method, single
from deq_fusion.training_structures.comparison.single_run import run_fusion

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["--fusion", "sum", "--epochs", "2"]
SCRIPT = """
import json, os, sys
import torch
from deq_fusion.examples.digits import recipe, train

recipe.DROPOUT, seeds, build = 0.0, [], recipe.build

def watched(fusion, train):
    model = build(fusion, train)
    model.register_forward_hook(lambda *_: seeds.append(torch.initial_seed()))
    return model

recipe.build = watched
result = train.main(sys.argv[2:]) | {"seeds": sorted(set(seeds))}
with open(f"{sys.argv[1]}/{os.environ['RANK']}.json", "w") as file:
    json.dump(result, file)
"""


def without_times(result):
    return {name: value for name, value in result.items() if name != "seconds"}


@pytest.mark.slow
def test_two_processes_print_once_what_one_prints(tmp_path, monkeypatch, capsys):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    options = ["--standalone", "--nproc-per-node", "2", str(path), str(tmp_path), *ARGUMENTS]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(digits, "DROPOUT", 0.0)
    alone = train.main(ARGUMENTS)
    said, expected = done.stdout.splitlines(), capsys.readouterr().out.splitlines()
    assert said[:2] == expected[:2] and len(said) == len(expected) == 3
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    training, scoring = 1_000_003, 0  # so that dropout differs from the first one's
    assert [result.pop("seeds") for result in both] == [[0], [scoring, training]]
    assert without_times(both[0]) == without_times(both[1])
    assert both[0]["scores"] == pytest.approx(alone["scores"], abs=1e-6)
    assert both[0]["valid"] == pytest.approx(alone["valid"], rel=1e-4)


def predicted(precision, name):
    """The dtypes that the head returned in training, and in validation and test."""
    recipe, seen = digits.recipe(), []

    def build(fusion, train):
        model = digits.build(fusion, train)
        model.head.register_forward_hook(lambda head, _, out: seen.append(out.dtype))
        return model

    recipe = replace(recipe, epochs=1, build=build, precision=precision)
    run_fusion(Method(name, recipe, FUSIONS[name]), 0)
    return seen


@pytest.mark.parametrize("name", ["sum", "deq"])
def test_precision_is_that_of_training_and_of_what_is_scored(name):
    full, half = predicted("fp32", name), predicted("bf16", name)
    assert set(full) == {torch.float32} and set(half) == {torch.bfloat16}
    assert len(full) == len(half)


def test_precision_is_described_unless_it_is_the_default():
    recipe = digits.recipe()
    assert "precision" not in recipe.shared_settings()
    assert replace(recipe, precision="bf16").shared_settings()["precision"] == "'bf16'"
    with pytest.raises(ValueError, match=r"precision must be one of \['fp32', .*, got 'fp8'"):
        replace(recipe, precision="fp8")


def test_a_fusion_of_ones_own_is_trained(tmp_path, monkeypatch, capsys):
    code = "from deq_fusion.fusions.common_fusions import Concat\n\ndef Own(input_dims, dim):\n"
    code += "    return Concat(), sum(input_dims)\n"
    (tmp_path / "my_fusions.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    found = train.main(["--own-fusion", "my_fusions:Own", "--epochs", "2"])
    assert ": Own, seed 0" in capsys.readouterr().out
    known = train.main(["--fusion", "concat", "--epochs", "2"])
    assert (found["scores"], found["valid"]) == (known["scores"], known["valid"])


def test_every_epoch_can_be_logged(tmp_path):
    pytest.importorskip("tensorboard")
    found = train.main([*ARGUMENTS, "--log", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["sum-0"]
    assert without_times(found)["scores"] == train.main(ARGUMENTS)["scores"]


def test_precision_on_the_command_line(capsys):
    full = train.main([*ARGUMENTS])["curve"][-1]["train_loss"]
    half = train.main([*ARGUMENTS, "--precision", "bf16"])["curve"][-1]["train_loss"]
    assert half != full and half == pytest.approx(full, rel=0.05)
    with pytest.raises(SystemExit):
        train.main(["--precision", "fp8"])
    assert "invalid choice: 'fp8'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main(["--help"])
    assert "torchrun --nproc-per-node 2 -m " in capsys.readouterr().out


def test_every_modality_is_trained_alone_with_the_seed_and_a_checkpoint_of_its_own(tmp_path):
    arguments = ["--epochs", "1", "--modalities", "top left,top right", "--seed", "3"]
    found = train.main([*arguments, "--unimodal", "--checkpoint", str(tmp_path / "c.pt")])
    assert list(found) == ["top left", "top right"]
    made = replace(digits.recipe(), epochs=1)
    for name, result in found.items():
        assert result["scores"] == run_fusion(single(made, name), 3)["scores"]
        assert (tmp_path / f"c.pt.{name}").is_file()


@pytest.mark.parametrize("other", [["--fusion", "concat"], ["--own-fusion", "torch.nn:Identity"]])
def test_a_fusion_and_unimodal_are_not_asked_for_together(other, capsys):
    with pytest.raises(SystemExit):
        train.main(["--unimodal", *other])
    assert "not allowed with argument" in capsys.readouterr().err
