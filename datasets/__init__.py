"""Benchmarks, one folder each: `get_data.get_dataloader` gives (train, valid, test) loaders."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # beside MultiBench's package of this name
