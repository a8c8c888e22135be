"""DEQ fusion of a question and an image: VQA-v2, or a set in its layout.

python -m datasets.vqa.prepare --data-dir data/vqa
python -m examples.vqa.vqa_deq --data-dir data/vqa
python -m examples.vqa.vqa_deq --data-dir data/vqa --set host=mcan --set size=large   # in MCAN
python -m examples.vqa.vqa_deq --data-dir data/vqa --submission results.json   # answers for test
"""

from functools import partial

from examples.run_one import run_one
from examples.vqa.recipe import recipe
from examples.vqa.submission import add_submission

main = partial(run_one, recipe, description=__doc__, needs_data=True, more=add_submission)

if __name__ == "__main__":
    main()
