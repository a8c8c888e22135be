"""Training: one loop for any module, MultiBench's interface over it, metrics and checkpoints."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
