"""Weights drawn at the start of a fit: `WeightInitialization`, `initialize`."""
