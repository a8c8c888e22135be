"""Questions about images: VQA-v2, or a set in its layout.

deq-fusion prepare vqa --data-dir data/vqa
python -m deq_fusion.examples.vqa.train --data-dir data/vqa                      # DEQ fusion
python -m deq_fusion.examples.vqa.train --data-dir data/vqa --fusion mutan
python -m deq_fusion.examples.vqa.train --data-dir data/vqa --unimodal
python -m deq_fusion.examples.vqa.train --data-dir data/vqa --set host=mcan --set size=large
python -m deq_fusion.examples.vqa.train --data-dir data/vqa --submission r.json  # answers to test

The question alone shows what VQA-v2 gives away without the image.
"""

from functools import partial

from deq_fusion.examples.run_one import run_one
from deq_fusion.examples.vqa.recipe import recipe
from deq_fusion.examples.vqa.submission import add_submission

main = partial(run_one, recipe, description=__doc__, needs_data=True, more=add_submission)

if __name__ == "__main__":
    main()
