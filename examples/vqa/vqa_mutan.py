"""Mutan's fusion (Ben-younes et al., 2017) of a question and an image: VQA-v2.

python -m examples.vqa.vqa_mutan --data-dir data/vqa
"""

from functools import partial

from examples.run_one import run_one
from examples.vqa.recipe import recipe

main = partial(run_one, recipe, description=__doc__, fusion="mutan", needs_data=True)

if __name__ == "__main__":
    main()
