"""Stopping and decay against keeping every checkpoint: tasks, training, kills."""
