"""The parts of scripts/bench_overhead.py."""
