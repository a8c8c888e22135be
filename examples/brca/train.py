"""Multi-omics classification in MM-Dynamics: BRCA, ROSMAP, or a set in their layout.

deq-fusion prepare brca --data-dir data/brca
python -m deq_fusion.examples.brca.train --data-dir data/brca                       # DEQ fusion
python -m deq_fusion.examples.brca.train --data-dir data/brca --fusion concat       # as published
python -m deq_fusion.examples.brca.train --data-dir data/brca --unimodal
python -m deq_fusion.examples.brca.train --data-dir data/brca --set sizes=authors   # a larger host

MM-Dynamics' own fusion is concatenation (Han et al., 2022).
"""

from functools import partial

from deq_fusion.examples.brca.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
