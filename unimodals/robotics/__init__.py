"""Encoders and decoders of a robot's sensors, after "Making Sense of Vision and Touch"."""
