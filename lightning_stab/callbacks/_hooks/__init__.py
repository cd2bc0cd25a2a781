"""Hooks on modules and on torch functions, once for all callbacks."""
