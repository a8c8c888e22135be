"""Compares fusions on a benchmark: one command, one protocol, a table and a picture.

python -m examples.compare_fusions --list
python -m examples.compare_fusions --dataset digits --fusions deq,concat --runs 5
python -m examples.compare_fusions --dataset brca --data-dir DIR --runs 20 --jobs 2
python -m examples.compare_fusions --dataset mosi --data-dir DIR --modalities text,audio
python -m examples.compare_fusions --dataset imdb --data-dir DIR --set encoders=vgg_word2vec
python -m examples.compare_fusions --dataset vqa --data-dir DIR --fusions deq,concat,mutan
"""

from examples.affect.recipe import recipe as mosi
from examples.brca.recipe import recipe as brca
from examples.digits.recipe import recipe as digits
from examples.imdb.recipe import recipe as imdb
from examples.vqa.recipe import recipe as vqa
from fusions.registry import FUSIONS, LATER
from training_structures.comparison import command_line

RECIPES = {"digits": digits, "brca": brca, "mosi": mosi, "imdb": imdb, "vqa": vqa}
PROGRAM = "python -m examples.compare_fusions"


if __name__ == "__main__":
    command_line(RECIPES, FUSIONS, program=PROGRAM, subject="deq", later=LATER)
