"""Each of the omics on its own, in MM-Dynamics: BRCA, or ROSMAP.

python -m examples.brca.brca_unimodal --data-dir data/brca
"""

from functools import partial

from examples.brca.recipe import recipe
from examples.run_one import run_unimodal

main = partial(run_unimodal, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
