"""What is measured: each subject with its corpus, its peers and its results."""
