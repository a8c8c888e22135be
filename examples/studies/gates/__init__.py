"""Which modality the gate of a trained DEQ fusion lets through, and what it does about noise."""
