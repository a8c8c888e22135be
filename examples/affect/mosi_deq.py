"""DEQ fusion of text, audio and vision: the sentiment of CMU-MOSI's utterances.

deq-fusion prepare mosi --data-dir data/mosi
python -m deq_fusion.examples.affect.mosi_deq --data-dir data/mosi --modalities text,audio
python -m deq_fusion.examples.affect.mosi_deq --data-dir data/mosi --set host=cm_bert   # in CM-BERT
"""

from functools import partial

from deq_fusion.examples.affect.recipe import recipe
from deq_fusion.examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
