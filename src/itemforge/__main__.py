"""`python -m itemforge` is the `itemforge` command."""

from itemforge.cli import run

if __name__ == "__main__":
    run()
