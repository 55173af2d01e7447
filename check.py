"""The one check: `python check.py` runs the linters, the types and the tests; with `--fast`, not the slow ones."""

import subprocess
import sys

COMMANDS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("pytest",))


def main() -> int:
    """Run every command in turn, stop at the first that fails."""
    for command in COMMANDS:
        arguments = [*command, "-m", "not slow and not browser and not gpu and not full"] if fast(command) else [*command]
        print("$", " ".join(arguments), flush=True)
        if subprocess.run([sys.executable, "-m", *arguments], check=False).returncode != 0:
            return 1
    return 0


def fast(command: tuple[str, ...]) -> bool:
    """Whether this is the test run and only the fast part is wanted."""
    return command == ("pytest",) and "--fast" in sys.argv[1:]


if __name__ == "__main__":
    sys.exit(main())
