"""``python -m pointloom`` is the ``pointloom`` command."""

from pointloom.cli import main

if __name__ == "__main__":
    main()
