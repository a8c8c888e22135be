"""DEQ fusion of multi-omics data in MM-Dynamics: BRCA, ROSMAP, or a set in their layout.

python -m datasets.brca.prepare --data-dir data/brca
python -m examples.brca.brca_deq --data-dir data/brca
python -m examples.brca.brca_deq --data-dir data/brca --set sizes=authors   # as published
"""

from functools import partial

from examples.brca.recipe import recipe
from examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
