"""Noise for test data, by kind of modality: robustness as MultiBench measures it."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # beside MultiBench's package of this name
