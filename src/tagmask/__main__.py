"""``python -m tagmask``: the same as the ``tagmask`` command, and what torchrun starts."""

from tagmask.cli import main

if __name__ == "__main__":
    main()
