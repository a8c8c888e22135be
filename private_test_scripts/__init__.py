"""The place from which 22 of MultiBench's examples import `eval_scripts.complexity`."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # beside MultiBench's package of this name
