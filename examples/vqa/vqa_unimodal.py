"""The question and the image on their own: what VQA-v2 gives away without the other.

python -m deq_fusion.examples.vqa.vqa_unimodal --data-dir data/vqa
"""

from functools import partial

from deq_fusion.examples.run_one import run_unimodal
from deq_fusion.examples.vqa.recipe import recipe

main = partial(run_unimodal, recipe, description=__doc__, needs_data=True)

if __name__ == "__main__":
    main()
