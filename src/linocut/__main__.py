"""`python -m linocut` is the command `linocut`."""

from linocut.cli import main

if __name__ == "__main__":
    main()
