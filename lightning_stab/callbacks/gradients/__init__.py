"""Gradient norms and the statistics made of them: `GradientMonitor`."""
