"""The docs and the code say the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.kit.reference import DOCS, PAGES

ROOT = DOCS.parent


@pytest.mark.parametrize("name", PAGES)
def test_pages_made_from_the_code_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run ./dev fmt"


def test_every_command_is_in_the_guide() -> None:
    commands = [path.stem.replace("_", "-") for path in (ROOT / "src/mags/cli/commands").glob("[a-z]*.py")]
    guide = (DOCS / "guide.md").read_text()
    missing = [name for name in commands if not re.search(rf"\bmags {re.escape(name)}\b", guide)]
    assert len(commands) > 20 and not missing


def test_the_architecture_has_the_layers_that_are_checked() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    parts = {
        contract["name"].removeprefix("Layers of "): contract["layers"]
        for contract in contracts
        if "layers" in contract
    }
    whole = parts.pop("the whole")
    listing = [line.partition("  ")[0] for line in text.partition("```\ncli\n")[2].partition("```")[0].splitlines()]
    assert ["cli", *listing] == [layer.replace("mags.", "") for layer in whole]
    assert set(parts) == {"control", "edge", "host"}
    for name, layers in parts.items():
        words = [layer.replace(f"mags.{name}.", "").replace("mags.", "") for layer in layers]
        shown = " > ".join("features" if "jobs" in word else word for word in words)
        assert f"- {name}: `{shown}`" in text


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_no_file_of_the_source_is_long() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "guest/src").glob("*.[ch]")]
        if (count := len(path.read_text().splitlines())) > 600
    }
    assert not long


def test_the_environment_is_read_in_few_places() -> None:
    """Settings come from one typed table; only the programs' rims touch os.environ."""
    allowed = {"cli", "sdk", "supervisor", "kit"}
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "src/mags").rglob("*.py")
        if re.search(r"\bos\.(environ|getenv)\b", path.read_text())
        and path.relative_to(ROOT / "src/mags").parts[0] not in allowed
    ]
    assert not found


def test_the_repository_names_no_path_of_a_developers_machine() -> None:
    words = re.compile("/" + r"(work|home/[a-z]+)/")
    found = [
        str(path)
        for pattern in ("src/**/*.py", "tests/**/*.py", "docs/**/*.md", "guest/**/*.[ch]", "*.md", "dev", "bench/*.py")
        for path in ROOT.glob(pattern)
        if path != Path(__file__) and words.search(path.read_text())
    ]
    assert not found
