"""What `bench_stopping.py` trains, how it trains it, and how it kills it."""
