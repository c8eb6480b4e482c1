"""The sections of the experiments."""
