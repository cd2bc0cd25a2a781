"""What is asked of a Trainer, once for all callbacks."""
