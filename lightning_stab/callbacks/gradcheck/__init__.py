"""Gradients checked by central differences: `GradientCheck`, `check_gradients`."""
