"""Bad steps: recognised, skipped, taken back, explained: `StepGuard`."""
