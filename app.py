"""The page, as a Space and `python app.py` start it: `imagebart demo`, with its options."""

import sys

from imagebart.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
