"""Encoders and heads: each maps one modality to a feature, or a feature to a prediction."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # beside MultiBench's package of this name
