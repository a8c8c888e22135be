"""Multi-omics classification in MM-Dynamics: TCGA's BRCA, KIPAN or LGG.

deq-fusion prepare tcga --data-dir data/tcga
python -m deq_fusion.examples.tcga.train --data-dir data/tcga                        # DEQ fusion
python -m deq_fusion.examples.tcga.train --data-dir data/tcga --set cohort=lgg --fusion concat
python -m deq_fusion.examples.tcga.train --data-dir data/tcga --set clinical=known --unimodal
"""

from functools import partial

from deq_fusion.examples.run_one import run_one
from deq_fusion.examples.tcga.recipe import recipe

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
