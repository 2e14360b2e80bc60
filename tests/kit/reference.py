"""Pages of the docs that are made from the code: `python -m tests.kit.reference` writes them, a test compares them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

DOCS = Path(__file__).parents[2] / "docs"
NOTE = "Made from the code by `./dev fmt`; edit the code."


def settings_page() -> str:
    """Every setting of every program."""
    from mags.control.config import Settings as Control
    from mags.edge.config import Settings as Edge
    from mags.host.config import Settings as Host
    from mags.host.storage.config import StorageSettings
    from mags.supervisor.config import Settings as Up

    lines = [
        "# Settings",
        "",
        f"{NOTE} Settings are environment variables; `mags up` passes them on to the programs it starts, and sets what",
        "it decides itself (addresses, directories, credentials).",
    ]
    for title, kind in (
        ("mags up", Up),
        ("mags control", Control),
        ("mags host", Host),
        ("mags host: storage of workspaces", StorageSettings),
        ("mags edge", Edge),
    ):
        lines += ["", f"## {title}", "", "| variable | default | meaning |", "|---|---|---|", *_rows(kind)]
    return "\n".join(lines) + "\n"


def _rows(kind: type[BaseSettings]) -> list[str]:
    prefix = str(kind.model_config.get("env_prefix", ""))
    rows = []
    for name, field in kind.model_fields.items():
        inner: Any = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseSettings):
            continue  # it has a table of its own
        if field.is_required():
            default = "(required)"
        elif field.default_factory is not None:
            default = "(this machine)"
        elif isinstance(field.default, tuple):
            default = f"`{json.dumps(field.default)}`"  # as it is given in the environment
        else:
            default = f"`{field.default}`" if field.default not in (None, "") else ""
        words = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {words} |")
    return rows


def endpoints_page() -> str:
    """Every endpoint of the REST API, by its OpenAPI description."""
    from mags.control.app.openapi import describe

    description = describe()
    lines = [
        "# Endpoints of the REST API",
        "",
        f"{NOTE} The whole description, with every field, is served at `/openapi.json` and, for reading, at `/docs`.",
        "",
        "| endpoint | what it does |",
        "|---|---|",
    ]
    for path, methods in sorted(description["paths"].items()):
        for method, operation in methods.items():
            lines.append(f"| `{method.upper()} {path}` | {operation.get('summary', '')} |")
    return "\n".join(lines) + "\n"


PAGES = {"settings.md": settings_page, "endpoints.md": endpoints_page}


def main() -> int:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
