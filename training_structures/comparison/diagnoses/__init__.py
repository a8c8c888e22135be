"""Diagnoses of trained models: what each modality brings, whether they interact, calibration."""
