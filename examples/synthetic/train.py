"""Aligned sequences whose best possible score is known: a minute on a CPU, no download.

python -m deq_fusion.examples.synthetic.train --fusion mfn
python -m deq_fusion.examples.synthetic.train --fusion ef_lstm --set steps=20
python -m deq_fusion.examples.synthetic.train --own-fusion my_module:MyFusion
python -m deq_fusion.examples.synthetic.train --unimodal
"""

from functools import partial

from deq_fusion.examples.run_one import run_one
from deq_fusion.examples.synthetic.recipe import recipe

main = partial(run_one, recipe, description=__doc__)

if __name__ == "__main__":
    main()
