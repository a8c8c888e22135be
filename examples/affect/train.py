"""The sentiment of CMU-MOSI's utterances, from text, audio and vision.

deq-fusion prepare mosi --data-dir data/mosi
python -m deq_fusion.examples.affect.train --data-dir data/mosi --modalities text,audio
python -m deq_fusion.examples.affect.train --data-dir data/mosi --fusion weighted_sum
python -m deq_fusion.examples.affect.train --data-dir data/mosi --unimodal
python -m deq_fusion.examples.affect.train --data-dir data/mosi --set host=cm_bert   # in CM-BERT

CM-BERT's own fusion is the weighted sum (Yang et al., 2020).
"""

from functools import partial

from deq_fusion.examples.affect.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
