"""The documentation: pages, and the scripts that make their tables and pictures."""
