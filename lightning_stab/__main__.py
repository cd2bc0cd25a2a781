"""``python -m lightning_stab``: the command line."""

from _lightning_stab import main

if __name__ == "__main__":
    main()
