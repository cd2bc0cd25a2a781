"""What activation functions put out: `ActivationMonitor`."""
