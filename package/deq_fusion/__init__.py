"""DEQ fusion: modalities fused at an equilibrium, and fusions compared head to head.

    from deq_fusion import DEQFusion

Each name is imported when it is first asked for, so that the plugin alone brings torch and
nothing else. `deq_fusion.fusions`, `.training_structures`, `.datasets`, `.unimodals`,
`.objective_functions` and `.examples` hold the rest.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_WHERE = {
    "DEQFusion": "fusions.deq",
    "compare": "comparing",
    "compare_data": "own_data",
    "predict_data": "own_data",
    "FusionClassifier": "estimators",
    "FusionRegressor": "estimators",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
