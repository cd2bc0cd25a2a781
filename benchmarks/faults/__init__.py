"""Poisoned batches against `StepGuard`."""
