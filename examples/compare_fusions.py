"""Compares fusions on a benchmark: one command, one protocol, a table and a picture.

python -m examples.compare_fusions --dataset digits --fusions deq,concat --runs 5
python -m examples.compare_fusions --dataset brca --data-dir DIR --runs 20 --jobs 2
"""

from examples.brca.recipe import recipe as brca
from examples.digits.recipe import recipe as digits
from fusions.registry import FUSIONS
from training_structures.comparison import command_line

RECIPES = {"digits": digits, "brca": brca}


if __name__ == "__main__":
    command_line(RECIPES, FUSIONS)
