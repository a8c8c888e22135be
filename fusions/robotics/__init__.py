"""The place in which MultiBench's robotics examples look for `fusions.sensor_fusion`."""
