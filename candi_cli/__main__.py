"""Entry point of the `candi` command and of `python -m candi_cli`."""

import sys

from candi_cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
