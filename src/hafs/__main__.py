"""`python -m hafs` is `hafs`."""

from hafs.cli import main

if __name__ == "__main__":
    main()
