"""The terminal: results to stdout, everything else to stderr; colour only where a person looks."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Sequence[object]


class Console:
    def out(self, text: str) -> None:
        """A result."""
        sys.stdout.write(text + "\n")

    def note(self, text: str) -> None:
        """Progress, advice: for people. A terminal that was closed is no reason to fail."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def complain(self, text: str) -> None:
        """Why it did not work, and what to do. The words may be a server's, or a VM's."""
        words = "\n".join(_printable(line) for line in text.split("\n"))
        self.note(f"{self.paint('error:', '31')} {words}")

    def json(self, value: Any) -> None:
        import json

        self.out(json.dumps(value, indent=2, ensure_ascii=False))

    def table(self, heads: Sequence[str], rows: Sequence[Row], *, nothing: str) -> None:
        """Columns as wide as they need; `nothing` is a note for an empty table."""
        if not rows:
            self.note(nothing)
            return
        cells = [[_printable(value) for value in row] for row in rows]
        widths = [max(len(row[column]) for row in [list(heads), *cells]) for column in range(len(heads))]
        for index, row in enumerate([list(heads), *cells]):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self.out(self.paint(line, "1", sys.stdout) if index == 0 else line)

    def record(self, fields: Mapping[str, object]) -> None:
        """One thing, a field a line; unknown ones are left out."""
        shown = {name: _printable(value) for name, value in fields.items() if value is not None}
        width = max((len(name) for name in shown), default=0)
        for name, value in shown.items():
            self.out(f"{name + ':':<{width + 1}} {value}")

    def paint(self, text: str, code: str, stream: Any = None) -> str:
        stream = sys.stderr if stream is None else stream
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
        return text if plain else f"\033[{code}m{text}\033[0m"

    def paint_result(self, text: str, code: str) -> str:
        return self.paint(text, code, sys.stdout)

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> bool:
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def writer(self, stream: int) -> Callable[[bytes], None]:
        """Bytes of a script, as they are, to our stdout (1) or stderr (anything else), at once."""
        target = (sys.stdout if stream == 1 else sys.stderr).buffer

        def write(data: bytes) -> None:
            target.write(data)
            target.flush()

        return write

    def abandon_output(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _printable(value: object) -> str:
    """Nothing from a server may steer the terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(c if c.isprintable() else "?" for c in str(value))
