"""The command `impasto`: the page, or one of the engine's commands.

Reads only what is the page's own; everything from the first command on goes to `trainer.cli`. Imports the page when it is
wanted, so that a command does not wait for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from trainer import __version__, cli
from trainer.errors import ImpastoError, UsageError
from trainer.home import Home


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the page or run a command; returns the exit code."""
    try:
        asked = parser().parse_args(arguments)
        if asked.command:
            if asked.port is not None or asked.no_browser:
                raise UsageError(f"--port and --no-browser are for the page, not for `impasto {asked.command[0]}`.")
            return cli.main([*(["--home", asked.home] if asked.home else []), *asked.command])
        from app.server import serve

        home = Home(Path(asked.home).expanduser().resolve()) if asked.home else Home.default()
        serve(home, asked.port, browser=not asked.no_browser)
    except ImpastoError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


class _Parser(argparse.ArgumentParser):
    """Wrong usage as a sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. See `{self.prog} --help`.")


def parser() -> argparse.ArgumentParser:
    """The grammar of the page's own options; the rest is a command."""
    root = _Parser(
        prog="impasto",
        usage="impasto [--home DIR] [--port N] [--no-browser]\n       impasto [--home DIR] COMMAND ...",
        description="Without a command: open the page in the browser. With one: run it.",
        epilog=f"The commands:\n\n{cli.parser().format_help()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"impasto {__version__}")
    root.add_argument("--home", metavar="DIR", help="folder for datasets, runs and LoRAs (default: ~/Impasto)")
    root.add_argument("--port", type=_port, metavar="N", help="port of the page (default: 7860, or the next that is free)")
    root.add_argument("--no-browser", action="store_true", help="only print the page's address")
    root.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="see below")
    return root


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
