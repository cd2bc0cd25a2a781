"""The scripts that draw the pictures of the documentation: `python -m docs.figures.NAME`."""
