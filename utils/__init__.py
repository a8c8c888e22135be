"""MultiBench's helpers, as far as code that is written for it imports them."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)  # beside MultiBench's package of this name
