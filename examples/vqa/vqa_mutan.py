"""Mutan's fusion (Ben-younes et al., 2017) of a question and an image: VQA-v2.

python -m deq_fusion.examples.vqa.vqa_mutan --data-dir data/vqa
"""

from functools import partial

from deq_fusion.examples.run_one import run_one
from deq_fusion.examples.vqa.recipe import recipe
from deq_fusion.examples.vqa.submission import add_submission

main = partial(
    run_one, recipe, description=__doc__, fusion="mutan", needs_data=True, more=add_submission
)

if __name__ == "__main__":
    main()
