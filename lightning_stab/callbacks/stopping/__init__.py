"""Early stopping with the best weights kept: `BestWeightsEarlyStopping`."""
