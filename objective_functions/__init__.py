"""Losses that need more than a prediction and the truth."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
