"""``python -m lightning_stab``: the command line."""

from lightning_stab.cli import main

if __name__ == "__main__":
    main()
