"""Gradient checking: wrong and right modules, and what the check says of them."""
