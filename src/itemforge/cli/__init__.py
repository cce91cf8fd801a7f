"""The command line: one module per command group, thin.

Heavy imports happen inside the commands, so that `itemforge --help` and the gateway never load torch.
"""

import os
import sys

from itemforge.errors import (
    ConfigurationError,
    GatewayRefused,
    InvalidInput,
    InvalidStyle,
    ItemForgeError,
    RetryableError,
    StyleNotFound,
)

#: Exit codes (sysexits.h): wrong usage or settings, something that must be reached is away, other failures.
USAGE, UNAVAILABLE, FAILED = 64, 69, 1
_ASKED_WRONGLY = (ConfigurationError, GatewayRefused, InvalidInput, InvalidStyle, StyleNotFound)


def run() -> None:
    """Entry point: errors raised on purpose become one clear line and an exit code."""
    from itemforge.cli.app import app

    try:
        app()
    except _ASKED_WRONGLY as error:
        _end(error, USAGE)
    except RetryableError as error:
        _end(error, UNAVAILABLE)
    except ItemForgeError as error:
        _end(error, FAILED)
    except BrokenPipeError:
        # The reader of our output (head, less) has enough; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _end(error: ItemForgeError, code: int) -> None:
    from itemforge.telemetry.logs import Redactor

    # An error may quote an address as it was given, with a password in it.
    error_text = Redactor(())(str(error))
    print(f"itemforge: {error_text}", file=sys.stderr)  # noqa: T201  # the command line's own voice
    sys.exit(code)
