"""Fusion modules: each maps a list of modality features to one fused feature."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # beside MultiBench's package of this name
