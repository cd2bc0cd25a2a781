"""What callbacks add to a training step, beside Lightning's own way and peers."""
