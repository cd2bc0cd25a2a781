"""Learning-rate schedules of epoch, step and loss: `LearningRateDecay`."""
