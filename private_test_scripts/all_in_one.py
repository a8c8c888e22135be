"""A second name of `eval_scripts.complexity`, beside which this folder lies."""

from importlib import import_module

_BESIDE = __name__.removesuffix("private_test_scripts.all_in_one")  # "", or "deq_fusion."
_complexity = import_module(f"{_BESIDE}eval_scripts.complexity")

getallparams = _complexity.getallparams
all_in_one_train = _complexity.all_in_one_train
all_in_one_test = _complexity.all_in_one_test
