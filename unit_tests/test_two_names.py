"""`fusions.deq` of a checkout and `deq_fusion.fusions.deq` in one process go together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BOTH = """
import torch
from torch import nn
from fusions.deq import DEQFusion as Bare, Equations as BareEquations
from deq_fusion import DEQFusion
from deq_fusion.fusions.deq import Equations
assert Bare is not DEQFusion
torch.set_num_threads(1)
"""
EQUATIONS = """
ours = DEQFusion([4, 4], 8, equations=BareEquations.like("paper", gate=False))
assert ours.equations == Equations.like("paper", gate=False)
assert type(ours.equations) is Equations
"""
TRAINING = """
from deq_fusion.training_structures.fit import fit
from deq_fusion.training_structures.Supervised_Learning import MMDL
x = torch.randn(16, 4)
loader = [[x, x, torch.arange(16) % 2]]
histories = []
for kind in Bare, DEQFusion:
    torch.manual_seed(0)
    fusion = kind([4, 4], 8, jacobian_weight=1.0)
    model = MMDL([nn.Identity(), nn.Identity()], fusion, nn.Linear(8, 2))
    histories.append(fit(model, loader, loader, nn.CrossEntropyLoss(), epochs=2))
bare, ours = ([{k: v for k, v in e.items() if k != "seconds"} for e in h.epochs] for h in histories)
assert bare == ours
assert bare[0]["solver_converged"] == 1
"""
STUDIES = """
from deq_fusion.examples.studies.study import is_deq
assert is_deq(Bare([4, 4], 8)) and is_deq(DEQFusion([4, 4], 8)) and not is_deq(nn.Linear(2, 2))
"""
RECIPES = """
from deq_fusion.training_structures.comparison.program.settings import make_recipe
from training_structures.comparison import Recipe, Score
def recipe(data_dir=None):
    return Recipe("mine", ["a"], None, None, None, None, [Score("accuracy")], 1)
assert make_recipe(recipe).name == "mine"
"""


@pytest.mark.slow
def test_what_one_makes_the_other_takes():
    done = subprocess.run(
        [sys.executable, "-c", BOTH + EQUATIONS + TRAINING + STUDIES + RECIPES],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
