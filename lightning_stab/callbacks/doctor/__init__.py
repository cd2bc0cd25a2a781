"""Facts of a run gathered for the rules of `diagnosis`: `TrainingDoctor`."""
