"""The doctor and other detectors on labelled programs, and how they are scored."""
