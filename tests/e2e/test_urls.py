"""VMs from the outside: what their servers have at public URLs, for browsers, curl and WebSockets, while they are awake
and when they sleep."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import websockets
from nats.aio.msg import Msg

from mags.kit import nats
from mags.protocol import messages, subjects
from mags.supervisor import broker
from tests.e2e import site as program
from tests.kit import browser, python_image
from tests.kit.installation import Installation, free_port

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

IMAGE = "test-urls"
DEADLINE_S = 120.0
IDLE_S = 5
"""The shortest that may be set."""
MORE_MB = 64
"""What a program of ours may need more, whatever the size of a body."""


@dataclass(frozen=True)
class Site:
    """A VM in which `site.py` serves. `port`, `flags`: where, and how, it is reached over TLS too."""

    mags: Installation
    host: str
    tls_port: int
    root: Path

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.mags.apps.rpartition(':')[2]}"

    @property
    def secure(self) -> str:
        return f"https://{self.host}:{self.tls_port}"

    def sleep(self) -> None:
        self.mags.cli("sleep", "site")
        until(lambda: self.status() == "sleeping")

    def status(self) -> str:
        return str(self.mags.json("status", "site")["status"])


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def curl_words(*words: str) -> list[str]:
    """curl resolves *.localhost to loopback itself (RFC 6761)."""
    return ["curl", "-sS", "--noproxy", "*", "--max-time", "200", *words]


def curl(url: str, *flags: str) -> str:
    done = subprocess.run(curl_words(*flags, url), capture_output=True, text=True, timeout=250, check=False)
    return done.stdout


def code(url: str, *flags: str) -> str:
    return curl(url, "-o", "/dev/null", "-w", "%{http_code}", *flags)


@pytest.fixture(scope="module")
def image(mags: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """With Python, as `python3`."""
    folder = tmp_path_factory.mktemp("image")
    tree, archive = folder / "tree", folder / "root.tar"
    python = python_image.make_tree(tree)
    (tree / "bin" / "python3").symlink_to(python)
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True, timeout=120)
    mags.cli("image", "import", IMAGE, str(archive))
    yield IMAGE
    mags.cli("image", "remove", IMAGE)


@pytest.fixture(scope="module")
def tls(mags: Installation) -> Iterator[tuple[int, Path]]:
    """A second edge of the installation, with TLS: its port, and the certificate that signs its names'."""
    data, port = mags.data / "tls", free_port()
    environment = {
        **mags.environment,
        "MAGS_EDGE_NATS_URL": nats_url(mags, "edge"),
        "MAGS_EDGE_DATA_DIR": str(data),
        "MAGS_EDGE_EDGE_ID": "tls",
        "MAGS_EDGE_LISTEN_HTTP": f"127.0.0.1:{free_port()}",
        "MAGS_EDGE_LISTEN_HTTPS": f"127.0.0.1:{port}",
        "MAGS_EDGE_TLS": "internal",
        "MAGS_EDGE_SSH_PORT": "0",
    }
    root = data / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    with (mags.data / "log" / "tls.log").open("wb") as log:
        edge = subprocess.Popen([sys.executable, "-m", "mags.edge"], env=environment, stdout=log, stderr=log)
        try:
            until(lambda: root.exists() or edge.poll() is not None)
            yield port, root
        finally:
            edge.send_signal(signal.SIGTERM)
            assert edge.wait(timeout=60) == 0


def nats_url(mags: Installation, user: str) -> str:
    users = json.loads((mags.data / "nats-users.json").read_text())
    address = json.loads((mags.data / "run" / "up.json").read_text())["nats"]
    return broker.url(user, users, address)


@pytest.fixture(scope="module")
def site(mags: Installation, image: str, tls: tuple[int, Path]) -> Iterator[Site]:
    serve = f"exec python3 -u -c {shlex.quote(Path(program.__file__).read_text())}"
    mags.cli("run", "-p", "-d", "-n", "site", "--image", image, serve)
    url = mags.out("url", "site", "8080").split()[-1]
    assert url.startswith("http://") and "apps.localhost" in url
    made = Site(mags, url.split("/")[2].partition(":")[0], *tls)
    if code(made.url) != "200":
        raise AssertionError(mags.out("logs", "site"), mags.json("status", "site"), curl(made.url))
    yield made
    mags.cli("stop", "site", check=False)


@asynccontextmanager
async def states(mags: Installation, name: str) -> AsyncIterator[list[str]]:
    """The states that a VM comes to meanwhile, as its host tells them."""
    vm_id, seen = mags.json("status", name)["vm_id"], list[str]()

    async def on_event(message: Msg) -> None:
        event = messages.decode_event(message.data)
        if isinstance(event, messages.VmChanged) and event.vm_id == vm_id:
            seen.append(event.state)

    connection = await nats.connect(nats_url(mags, "edge"), name="test")
    try:
        await connection.subscribe(subjects.EVENTS, cb=on_event)
        await nats.settle(connection)
        yield seen
    finally:
        await connection.close()


# --- pages ------------------------------------------------------------------------------------------------------------


def test_the_page_of_a_vm_is_at_its_url(site: Site) -> None:
    assert curl(site.url) == "<h1>hello from mags-vm</h1>"
    assert curl(site.secure, "--cacert", str(site.root), "--http2", "-w", " %{http_version}").endswith("</h1> 2")


def browse(url: str, profile: Path) -> str:
    """The page as headless Chromium has it when it is loaded."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [browser.program(), *flags, "--virtual-time-budget=20000", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout or done.stderr[-2000:]


def test_a_browser_shows_what_a_server_has_also_after_it_fell_asleep(
    mags: Installation, image: str, tmp_path: Path
) -> None:
    serve = ("--url", "--port", "8080", "python3 -m http.server 8080")
    running = mags.popen("run", "-p", "-n", "files", "--image", image, "--idle", str(IDLE_S), *serve)
    try:
        assert running.stderr is not None
        url = ""
        while not url:
            line = running.stderr.readline().decode()
            assert line, "it has ended"
            url = line.partition("open at ")[2].strip()
        mags.cli("exec", "files", "echo > /root/a-file-of-mine")
        assert "a-file-of-mine" in browse(url, tmp_path / "profile")
        until(lambda: bool(mags.json("status", "files")["status"] == "sleeping"))
        assert "a-file-of-mine" in browse(url, tmp_path / "profile")
        assert mags.json("status", "files")["status"] == "running"
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        mags.cli("stop", "files", check=False)


def test_a_private_page_opens_by_its_link_and_not_by_an_alias(mags: Installation, site: Site, tmp_path: Path) -> None:
    jar = str(tmp_path / "cookies")
    alias = mags.out("url", "alias", "add", "my-site", "site").strip()
    assert code(alias) == "200"
    link = mags.out("url", "site", "8080", "--private").strip()
    try:
        assert (code(site.url), code(alias)) == ("403", "403")
        assert "hello from mags-vm" in curl(link, "-L", "-c", jar)
        assert "hello from mags-vm" in curl(site.url, "-b", jar)
        assert "hello from mags-vm" in curl(site.url, "-H", f"X-Mags-Token: {mags.token}")
    finally:
        mags.cli("url", "site", "8080", "--public")
    assert (code(site.url), code(alias)) == ("200", "200")
    mags.cli("url", "alias", "remove", "my-site")
    assert code(alias) == "404"


SHOP = r"""
printf '#!/bin/sh\nread line\nprintf "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n%s"' {} > /root/answer
chmod +x /root/answer
exec nc -lk -p 8080 -e /root/answer
"""


def test_an_alias_leads_to_the_newest_vm_and_a_url_that_is_closed_nowhere(mags: Installation) -> None:
    mags.cli("run", "-p", "-d", "-w", "shop", "--url", SHOP.format("first"))
    alias = mags.out("url", "alias", "add", "front", "shop").strip()
    assert curl(alias) == "first"
    mags.cli("stop", "shop")
    assert code(alias) == "410"
    mags.cli("run", "-p", "-d", "-w", "shop", "--url", SHOP.format("second"))
    assert curl(alias) == "second"
    url = mags.out("url", "shop", "8080").split()[-1]
    assert curl(url) == "second"
    mags.cli("url", "shop", "8080", "--close")
    assert code(url) == "404"
    assert mags.out("url", "shop", "8080").split()[-1] == url
    assert curl(url) == "second"
    mags.cli("url", "alias", "remove", "front")
    mags.cli("stop", "shop")


def test_a_name_that_nobody_has_is_not_found(mags: Installation, site: Site) -> None:
    port = mags.apps.rpartition(":")[2]
    assert code(f"http://nobody-has-this.apps.localhost:{port}/") == "404"


def test_who_does_not_answer_is_waited_for_and_then_named_and_harms_no_other(mags: Installation, site: Site) -> None:
    """A port where nothing listens, one where something does later, and a VM without network: waited for at once."""
    for name in ("silent", "cut"):
        mags.cli("new", name)
    silent, late = mags.out("url", "silent", "9999").split()[-1], mags.out("url", "silent", "8080").split()[-1]
    cut = mags.out("url", "cut", "8080").split()[-1]
    mags.cli("exec", "cut", f"({SHOP.format('here')}) >/dev/null 2>&1 &")
    assert curl(cut) == "here"
    mags.cli("exec", "cut", "ip link set eth0 down")
    mags.cli("exec", "silent", f"(sleep 5; {SHOP.format('late')}) >/dev/null 2>&1 &")
    asking = [
        subprocess.Popen(curl_words("-w", "\n%{http_code}", url), stdout=subprocess.PIPE, text=True)
        for url in (silent, late, cut)
    ]
    assert code(site.url) == "200"
    assert mags.out("exec", "cut", "echo here") == "here\n"
    answers = [one.communicate(timeout=250)[0] for one in asking]
    assert answers[0].endswith("\n502") and "listens on port 9999 (waited 10 s)" in answers[0]
    assert answers[1] == "late\n200"
    assert answers[2].endswith("\n502") and "listens on port 8080 (waited 10 s)" in answers[2]
    assert mags.out("exec", "cut", "echo here") == "here\n"
    for name in ("silent", "cut"):
        mags.cli("stop", name)
    assert code(silent) == "410"


# --- streams ----------------------------------------------------------------------------------------------------------


def memory(mags: Installation) -> dict[int, int]:
    """Peak of the resident memory (kB) of each program that a body passes, and of those that must not see it."""
    peaks = {}
    for name in ("edge", "caddy", "host", "control"):
        for pid in mags.programs()[name]:
            status = Path(f"/proc/{pid}/status").read_text()
            peaks[pid] = int(status.partition("VmHWM:")[2].split()[0])
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak begins anew
    return peaks


@pytest.mark.parametrize(
    "size", [300 << 20, pytest.param(1 << 30, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])], ids=["300M", "1G"]
)
def test_bodies_of_any_size_pass_both_ways_over_http_2_in_little_memory(
    mags: Installation, site: Site, tmp_path: Path, size: int
) -> None:
    """The upload wakes the VM."""
    flags = ("--cacert", str(site.root), "--http2")
    file, crc = tmp_path / "body", 0
    with file.open("wb") as body:
        for piece in program.pieces(size):
            crc = zlib.crc32(piece, crc)
            body.write(piece)
    site.sleep()
    memory(mags)
    before = memory(mags)

    assert curl(f"{site.secure}/up", *flags, "-T", str(file), "-w", " %{http_version}") == f"{crc} 2"
    argv = curl_words(*flags, f"{site.secure}/down/{size}")
    received = 0
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as download:
        assert download.stdout is not None
        while piece := download.stdout.read(1 << 20):
            received = zlib.crc32(piece, received)

    assert received == crc
    grown = {pid: peak - before[pid] for pid, peak in memory(mags).items()}
    assert max(grown.values()) < MORE_MB << 10, grown


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_events_come_one_by_one_from_a_vm_that_has_slept(site: Site, version: str) -> None:
    url, flags = (site.url, ()) if version == "1.1" else (site.secure, ("--cacert", str(site.root), "--http2"))
    site.sleep()
    argv = curl_words("-N", *flags, "-w", "%{http_version}", f"{url}/events")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        assert events.stdout.readline() == "data: one\n"
        assert curl(f"{url}/go-on", *flags) == "went on"
        assert events.stdout.read() == f"\ndata: two\n\n{version}"


@asynccontextmanager
async def chat(site: Site, *, secure: bool = False) -> AsyncIterator[websockets.ClientConnection]:
    """A WebSocket whose other end sends back what comes."""
    context = ssl.create_default_context(cafile=site.root) if secure else None
    uri = f"{site.secure if secure else site.url}/echo".replace("http", "ws", 1)
    async with websockets.connect(
        uri, ssl=context, host="127.0.0.1", max_size=None, proxy=None, ping_interval=None, open_timeout=DEADLINE_S
    ) as connection:
        yield connection


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_websocket_wakes_a_vm_and_carries_messages_of_any_size(site: Site, secure: bool) -> None:
    await asyncio.to_thread(site.sleep)
    async with chat(site, secure=secure) as connection:
        for message in (b"hello", bytes(range(256)) * 20_000):
            await connection.send(message)
            assert await connection.recv() == message


# --- sleep ------------------------------------------------------------------------------------------------------------


async def test_fifty_clients_and_a_command_wake_it_once(mags: Installation, site: Site) -> None:
    await asyncio.to_thread(site.sleep)
    async with (
        states(mags, "site") as seen,
        httpx.AsyncClient(
            base_url=f"http://{mags.apps}",
            headers={"Host": site.host},
            timeout=DEADLINE_S,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        ) as client,
    ):
        command = asyncio.create_task(asyncio.to_thread(mags.out, "exec", "site", "echo here"))
        answers = await asyncio.gather(*(client.get(f"/{number}") for number in range(50)))
        assert await command == "here\n"
        assert {(answer.status_code, answer.text) for answer in answers} == {(200, "<h1>hello from mags-vm</h1>")}
        assert seen == ["running"]


@asynccontextmanager
async def download(site: Site) -> AsyncIterator[None]:
    """One that has begun, and that nobody goes on reading."""
    reader, writer = await asyncio.open_connection(*site.mags.apps.split(":"), limit=1 << 16)
    try:
        writer.write(f"GET /down/{1 << 30} HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        yield
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("use", [chat, pytest.param(download, marks=pytest.mark.soak)])
async def test_what_is_open_keeps_it_awake_though_it_stands_still(
    mags: Installation, site: Site, use: Callable[[Site], AbstractAsyncContextManager[object]]
) -> None:
    await asyncio.to_thread(mags.cli, "set", "site", "--idle", str(IDLE_S))
    try:
        async with states(mags, "site") as seen:
            async with use(site):
                await asyncio.sleep(IDLE_S + 2)
                assert "sleeping" not in seen
            async with asyncio.timeout(DEADLINE_S):
                while seen[-1:] != ["sleeping"]:
                    await asyncio.sleep(0.1)
    finally:
        await asyncio.to_thread(mags.cli, "set", "site", "--idle", "600")
