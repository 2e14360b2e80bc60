"""The synchronous half of the SDK, and of its tests, made from the asynchronous one.

    python -m tests.kit.twins            writes each X.py beside async_X.py (`./dev fmt` does)
    python -m tests.kit.twins --check    fails when one is not as it would be made (`./dev lint` does)

Only async_X.py is written by hand. What the two can't say with the same words is in a module of its own, or here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("src/mags/sdk", "tests/unit/sdk", "tests/integration/sdk")
NOTE = "# Made from {source} by `./dev fmt`; edit that.\n"

RULES = [
    (r"\bFor one event loop\b", "Safe to share between threads"),
    (r"\ban `async with`", "a `with`"),
    (r"join\(\[(\w+) async for \1 in ([^\]]+)\]\)", r"join(\2)"),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait asyncio\.to_thread\(([\w.]+), ", r"\1("),
    (r"(?<!\w)\(await ((?:[^(),]|\((?:[^()]|\([^()]*\))*\))+)\)", r"\1"),
    (r"\bawait ", ""),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"(?m)^import asyncio$", "import time"),
    (r"\bCoroutine\[Any, Any, (\w+)\]", r"\1"),
    (r"\bAwaitable\[(\w+)\]", r"\1"),
    (r"\bAsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b(test_)?async_(?=\w+ import|sandbox\b)", r"\1"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\benter_async_context\b", "enter_context"),
    (r"\bopen_async\b", "open"),
    (r"\baclos(e|ing)\b", r"clos\1"),
    (r"\baiter(?=_bytes\b|\()", "iter"),
    (r"\banext\(", "next("),
    (r"\b__a(enter|exit|iter)__\b", r"__\1__"),
    (r"\bwebsockets\.asyncio\b", "websockets.sync"),
]
"""Patterns and what takes their place, one after the other."""


def made() -> Iterator[tuple[Path, str]]:
    """Each synchronous module and its text."""
    for folder in FOLDERS:
        for source in sorted((ROOT / folder).glob("*async_*.py")):
            yield source.with_name(source.name.replace("async_", "", 1)), synchronous(source)


def synchronous(source: Path) -> str:
    text = source.read_text()
    for pattern, words in RULES:
        text = re.sub(pattern, words, text)
    return _tidy(NOTE.format(source=source.name) + text)


def _tidy(text: str) -> str:
    """Imports sorted, those that are not needed any more left out, lines broken anew."""
    ruff = [sys.executable, "-m", "ruff"]
    for step in (["check", "--fix-only", "--unsafe-fixes", "--select", "I,F401,C416,UP028"], ["format"]):
        done = subprocess.run(
            [*ruff, *step, "--quiet", "-"], input=text, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
        )
        text = done.stdout
    return text


def main() -> int:
    old = [(target, text) for target, text in made() if not target.exists() or target.read_text() != text]
    for target, text in old:
        if "--check" in sys.argv:
            print(f"{target.relative_to(ROOT)} is not what its twin makes of it: run ./dev fmt", file=sys.stderr)
        else:
            target.write_text(text)
    return 1 if old and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
