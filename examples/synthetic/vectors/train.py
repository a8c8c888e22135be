"""Vectors of known structure, whose best possible accuracy is known: no download.

python -m deq_fusion.examples.synthetic.vectors.train --fusion mutan
python -m deq_fusion.examples.synthetic.vectors.train --set kind=gated --set modalities=3
python -m deq_fusion.examples.synthetic.vectors.train --own-fusion my_module:MyFusion
python -m deq_fusion.examples.synthetic.vectors.train --unimodal
"""

from functools import partial

from deq_fusion.examples.run_one import run_one
from deq_fusion.examples.synthetic.vectors.recipe import recipe

main = partial(run_one, recipe, description=__doc__)

if __name__ == "__main__":
    main()
