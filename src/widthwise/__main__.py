"""`python -m widthwise` is the command `widthwise`."""

from widthwise.cli import main

if __name__ == "__main__":
    main()
