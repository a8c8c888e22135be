"""Each of the omics on its own, in MM-Dynamics: BRCA, or ROSMAP.

python -m deq_fusion.examples.brca.brca_unimodal --data-dir data/brca
"""

from functools import partial

from deq_fusion.examples.brca.recipe import recipe
from deq_fusion.examples.run_one import run_unimodal

main = partial(run_unimodal, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
