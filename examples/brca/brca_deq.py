"""DEQ fusion of multi-omics data in MM-Dynamics: BRCA, ROSMAP, or a set in their layout.

deq-fusion prepare brca --data-dir data/brca
python -m deq_fusion.examples.brca.brca_deq --data-dir data/brca
python -m deq_fusion.examples.brca.brca_deq --data-dir data/brca --set sizes=authors  # as published
"""

from functools import partial

from deq_fusion.examples.brca.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
