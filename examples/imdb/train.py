"""The genres of a film, from its plot and its poster: MM-IMDB, or a set in its layout.

deq-fusion prepare imdb --data-dir data/imdb
python -m deq_fusion.examples.imdb.train --data-dir data/imdb                   # DEQ fusion
python -m deq_fusion.examples.imdb.train --data-dir data/imdb --fusion concat   # as in MultiBench
python -m deq_fusion.examples.imdb.train --data-dir data/imdb --unimodal
"""

from functools import partial

from deq_fusion.examples.imdb.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
