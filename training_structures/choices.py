"""Words that arguments are chosen from, apart from what needs torch: `--help` is to be quick."""

TASKS = ("classification", "multilabel", "regression")
FEATURES = ("vectors", "sequences")
PRECISIONS = ("fp32", "bf16", "fp16")
