"""Small modules with right and wrong backward passes: the measure of the gradient check."""
