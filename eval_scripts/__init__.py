"""MultiBench's measurements of a model: performance, complexity and robustness."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # beside MultiBench's package of this name
