"""`mags`: finds the command, imports that one file, runs it, and turns what goes wrong into one line and a status.

Exit status: the command's own; 1 when it failed, 2 when it was called wrongly, 125 when the platform failed under
`run`, `exec` or `ssh`, 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper

from mags.cli.console import Console
from mags.cli.table_of_commands import COMMANDS, overview


def main(words: list[str] | None = None) -> int:
    """Run one command line and return its exit status (the console script exits with it)."""
    words = sys.argv[1:] if words is None else words
    console = Console()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a character shows another
            stream.reconfigure(errors="replace")
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[1] in COMMANDS:
            return run_command(words[1], ["--help"], console)
        print(overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version", "version"):
        from mags import __version__

        print(f"mags {__version__}")
        return 0
    if words[0] not in COMMANDS:
        console.complain(f"There is no command {words[0]!r}{_perhaps(words[0])}. See `mags --help`.")
        return 2
    return run_command(words[0], words[1:], console)


def run_command(name: str, words: list[str], console: Console) -> int:
    from mags.cli.command import FAILED, execute

    try:
        status = execute(import_module(f"mags.cli.commands.{COMMANDS[name].module}"), name, words, console)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read our output has left. Python would complain again while it flushes at exit.
        console.abandon_output()
        return 128 + 13
    except OSError as error:
        console.abandon_output()
        console.complain(_system_error(error))
        return FAILED
    except KeyboardInterrupt:
        console.complain("Interrupted.")
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mags"):
            raise
        console.complain(f"`mags {name}` needs the parts of a server ({error.name}): install Mags with [server].")
        return FAILED


def _system_error(error: OSError) -> str:
    """What an error of the system says; one without a number is a sentence of ours, or a time-out without words."""
    if error.errno is None:
        return str(error) or "It took too long."
    return f"{error.strerror or error}: {error.filename or 'the output'}."


def _perhaps(word: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


if __name__ == "__main__":
    sys.exit(main())
