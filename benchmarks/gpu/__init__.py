"""The whole suite on a GPU: right in every regime, and what it costs there."""
