"""Clipping rules at work on an optimizer step: `GradientClipping`."""
