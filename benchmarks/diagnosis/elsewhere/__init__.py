"""Programs drawn at random, labelled by how they end: the doctor where nobody has tuned it."""
