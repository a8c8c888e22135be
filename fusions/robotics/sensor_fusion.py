"""A second name of `fusions.sensor_fusion`, which seven of MultiBench's examples import."""

from ..sensor_fusion import (
    SensorFusion,
    SensorFusionSelfSupervised,
    depth_deconv,
    duplicate,
    gaussian_parameters,
    product_of_experts,
    roboticsConcat,
    sample_gaussian,
)

__all__ = [
    "SensorFusion",
    "SensorFusionSelfSupervised",
    "depth_deconv",
    "duplicate",
    "gaussian_parameters",
    "product_of_experts",
    "roboticsConcat",
    "sample_gaussian",
]
