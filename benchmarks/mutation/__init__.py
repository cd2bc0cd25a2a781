"""How many small faults, planted in the package, its tests notice."""
