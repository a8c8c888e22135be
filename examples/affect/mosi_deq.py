"""DEQ fusion of text, audio and vision: the sentiment of CMU-MOSI's utterances.

python -m datasets.affect.prepare --data-dir data/mosi
python -m examples.affect.mosi_deq --data-dir data/mosi --modalities text,audio
python -m examples.affect.mosi_deq --data-dir data/mosi --set host=cm_bert   # in CM-BERT
"""

from functools import partial

from examples.affect.recipe import recipe
from examples.run_one import run_one

main = partial(run_one, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
