"""A VM from the outside: its public URL in a browser and by curl."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import browser
from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

SERVER = r"""
cat > /root/answer <<'X'
#!/bin/sh
while read -r line && [ "$line" != "$(printf '\r')" ]; do echo "$line" >> /tmp/request; done
body="<h1>hello from $(hostname)</h1><p>$(cat /root/visits 2>/dev/null)</p>"
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n%s' "$body"
X
chmod +x /root/answer
while true; do nc -l -p 8080 -e /root/answer; done
"""


@pytest.fixture(scope="module")
def site(mags: Installation) -> Iterator[str]:
    """The URL of a VM that serves a page."""
    mags.cli("run", "-p", "-d", "-n", "site", SERVER)
    deadline = time.monotonic() + 90
    while mags.json("status", "site")["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    url = mags.out("url", "site", "8080").strip().split()[-1]
    assert url.startswith("http://") and "apps.localhost" in url
    yield url
    mags.cli("stop", "site", check=False)


def curl(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """curl resolves *.localhost to loopback itself (RFC 6761)."""
    return subprocess.run(
        ["curl", "-sS", "--max-time", "60", *flags, url], capture_output=True, text=True, timeout=90, check=False
    )


def test_the_page_of_a_vm_is_at_its_url(site: str) -> None:
    assert "<h1>hello from mags-vm</h1>" in curl(site).stdout


def test_a_browser_shows_it(site: str, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        [browser.program(), *flags, "--virtual-time-budget=20000", "--dump-dom", site],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "hello from mags-vm" in done.stdout, done.stderr[-2000:]
    assert not picture.exists()


def test_a_private_page_opens_by_its_link_and_an_alias_leads_to_the_same_vm(
    mags: Installation, site: str, tmp_path: Path
) -> None:
    jar = str(tmp_path / "cookies")
    mags.cli("url", "alias", "remove", "my-shop", check=False)
    alias = mags.out("url", "alias", "add", "my-shop", "site").strip()
    link = mags.out("url", "site", "8080", "--private").strip()
    try:
        assert curl(site, "-o", "/dev/null", "-w", "%{http_code}").stdout == "403"
        assert "hello from mags-vm" in curl(link, "-L", "-c", jar).stdout
        assert "hello from mags-vm" in curl(site, "-b", jar).stdout
        assert "hello from mags-vm" in curl(site, "-H", f"X-Mags-Token: {mags.token}").stdout
    finally:
        mags.cli("url", "site", "8080", "--public")
    assert "hello from mags-vm" in curl(alias).stdout
    mags.cli("url", "alias", "remove", "my-shop")
    assert curl(alias, "-o", "/dev/null", "-w", "%{http_code}").stdout == "404"


def test_a_name_that_nobody_has_is_not_found(mags: Installation, site: str) -> None:
    port = mags.apps.rpartition(":")[2]
    answer = curl(f"http://nobody-has-this.apps.localhost:{port}/", "-o", "/dev/null", "-w", "%{http_code}")
    assert answer.stdout == "404"


def test_a_port_where_nothing_listens_is_a_bad_gateway_with_words(mags: Installation, site: str) -> None:
    mags.cli("new", "silent")
    url = mags.out("url", "silent", "9999").strip().split()[-1]
    answer = curl(url, "-w", "\n%{http_code}")
    assert answer.stdout.endswith("502") and "9999" in answer.stdout
    mags.cli("stop", "silent")
    gone = curl(url, "-o", "/dev/null", "-w", "%{http_code}")
    assert gone.stdout == "410"
