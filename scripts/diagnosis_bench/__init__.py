"""What `bench_diagnosis.py` consists of: the detectors, and how they are scored."""
