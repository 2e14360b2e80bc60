"""The byte vectors that the C tests of the agent read too: guest/vectors/*.txt."""

from __future__ import annotations

from pathlib import Path

from mags.protocol.guest import Builtin, Exec, Terminal

DIRECTORY = Path(__file__).resolve().parents[4] / "guest" / "vectors"

WISHES = {
    "argv": Exec(argv=["/bin/echo", "a b", ""]),
    "script": Exec(script=b"echo hi\n"),
    "script-with-arguments": Exec(script=b"echo $1", argv=["one"], window=1),
    "environment": Exec(argv=["env"], environment={"A": "1", "EMPTY": "", "E": "x=y"}),
    "place": Exec(argv=["pwd"], cwd="/srv", user="nobody"),
    "terminal": Exec(argv=["sh"], terminal=Terminal(24, 80)),
    "time": Exec(argv=["sleep", "9"], timeout_ms=1500, window=4 * 1024 * 1024),
    "stdin": Exec(argv=["cat"], stdin=True),
    "limits": Exec(argv=["true"], limits={7: (10, 20), 4: (0, -1)}),
    "file-read": Exec(builtin=Builtin.FILE_READ, argv=["/etc/passwd", "0", "-1"]),
    "file-list": Exec(builtin=Builtin.FILE_LIST, argv=["/"], user="1000:1000"),
}


def lines(name: str) -> list[list[str]]:
    """The lines of a vector file, split at blanks, without comments."""
    text = (DIRECTORY / name).read_text()
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def unhex(word: str) -> bytes:
    return b"" if word == "-" else bytes.fromhex(word)
