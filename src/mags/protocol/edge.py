"""What an edge (public URLs, SSH) asks control, and says to hosts and control about itself.

Requests are answered with `messages.Answer`, as those to hosts are: use `messages.answer`, `refusal`, `open_answer`.

| subject                        | from -> to       | request   | result       | meaning                              |
|--------------------------------|------------------|-----------|--------------|--------------------------------------|
| mags.control.resolve           | edge -> control  | Resolve   | Resolved     | whose VM a public name leads to      |
| mags.control.ask               | edge -> control  | Ask       | Asked        | may a certificate be made (TLS)      |
| mags.control.url_auth          | edge -> control  | UrlAuth   | Done         | may this token open a private URL    |
| mags.control.ssh               | edge -> control  | SshAuth   | SshGrant     | may this key open a sandbox          |
| mags.control.ssh_ports         | edge -> control  | Empty     | SshPorts     | the ports of their own that VMs have |
| mags.edge.describe             | control -> edge  | Empty     | EdgeInfo     | the SSH host key                     |
| mags.edge.listen               | control -> edge  | Listen    | Done         | open a VM's own SSH port             |
| mags.edge.changed              | control -> edge  | Changed   | no answer    | forget what you know of these        |
| mags.edge.release.EDGE         | host -> edge     | Release   | Released     | let go of a VM that is to sleep      |
| mags.host.HOST.activity.VM     | edge -> host     | Activity  | no answer    | every 1 s while a connection is open |

Control's subjects are served by a queue group: one of several controls answers. `mags.edge.listen` goes to every edge;
the first answer counts. EDGE is the id that an edge program gives itself when it starts.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import Literal

from mags.protocol.messages import Value

RESOLVE = "mags.control.resolve"
ASK = "mags.control.ask"
URL_AUTH = "mags.control.url_auth"
SSH_AUTH = "mags.control.ssh"
SSH_PORTS = "mags.control.ssh_ports"
CONTROL = "mags.control.*"
CONTROL_QUEUE = "mags-control"

DESCRIBE = "mags.edge.describe"
LISTEN = "mags.edge.listen"
CHANGED = "mags.edge.changed"

LINK_PARAMETER = "mags_key"
"""The query parameter (and the cookie) that carries the key of a private URL."""


def activity(host_id: str, vm_id: str) -> str:
    """Subject of `Activity`."""
    return f"mags.host.{host_id}.activity.{vm_id}"


def release(edge_id: str) -> str:
    """Subject of `Release`."""
    return f"mags.edge.release.{edge_id}"


class Resolve(Value):
    name: str
    """The label before the apps domain, lower case: `sub` or `PORT-sub`."""
    domain: str | None = None
    """The rest of the name, for aliases under another domain."""


class Resolved(Value):
    """`ok`: dial `vm_id` on `host_id` (it wakes there). `starting`: hold the request and ask again. `unknown`: 404.

    `stopped`: the VM is gone for good, 410. `closed`: the VM is there, but no URL of it is open at this port, 404.
    """

    status: Literal["ok", "starting", "unknown", "stopped", "closed"]
    subdomain: str = ""
    """Without the port."""
    port: int = 8080
    job_id: str = ""
    name: str = ""
    """The job's name, for the pages that people see."""
    vm_id: str = ""
    host_id: str = ""
    owner: str = ""
    private: bool = False
    secret: str = ""
    """Of a private URL: the key for `check_link`."""
    ttl_s: float = 5.0
    """How long the answer may be kept. Ask again at once when dialling fails with not_found or gone."""


class Ask(Value):
    host: str
    """The full name that a certificate is wanted for."""


class Asked(Value):
    known: bool


class UrlAuth(Value):
    """An API token in the header `X-Mags-Token` of a request to a private URL. Refused: Problem(forbidden)."""

    subdomain: str
    token: str


class SshAuth(Value):
    """A client has proved that it holds `public_key`. An answer has no effects: it is also asked beforehand.

    Refused with `forbidden` or `not_found`: the client is not let in and learns nothing. With any other problem (the
    key is good, but the sandbox is gone, or not placed): it is let in, told the sentence, and its session ends.

    `user` names the sandbox by its name, workspace or id, `NAME+USER` with a user of the guest; `root` means the one
    sandbox that the key was made for, or the one whose own port `port` is.
    """

    user: str
    public_key: str
    """One line of authorized_keys without options or comment: `ssh-ed25519 AAAA...`."""
    port: int | None = None
    """The port it came to, when that is a VM's own."""


class SshGrant(Value):
    job_id: str
    vm_id: str
    host_id: str
    owner: str
    name: str
    guest_user: str = "root"


class SshPorts(Value):
    ports: dict[int, str] = {}
    """Port -> job id."""


class EdgeInfo(Value):
    ssh_host_key: str
    """`ssh-ed25519 AAAA...`, the same on every edge."""


class Listen(Value):
    port: int
    job_id: str


class Changed(Value):
    """Records have changed (a URL opened, closed, made private; an alias moved; a VM placed or gone; a key revoked).

    What an edge remembers of these is void at once, and connections that would lead elsewhere now are closed.
    """

    subdomains: list[str] = []
    """Without a port in front."""
    vms: list[str] = []
    ports: list[int] = []
    """VMs' own SSH ports that are closed for good."""


class Activity(Value):
    vm_id: str
    connections: int
    """Open now: URLs, SSH."""
    edge: str = ""
    """Whose they are."""


class Release(Value):
    """The VM is to fall asleep, and lets nobody in until that is decided. The edge ends its connections to it on which
    no request is under way; requests that come now it holds, as for any VM that sleeps."""

    vm_id: str


class Released(Value):
    busy: int
    """Connections that are left, in the middle of a request or still being made."""


def sign_link(secret: str, *, lifetime_s: float, now: float | None = None) -> str:
    """The value of `LINK_PARAMETER` that opens a private URL for `lifetime_s` seconds: `EXPIRY.SIGNATURE`.
    Each open port has a secret of its own, so it opens that one, whatever name leads there, and no other."""
    expiry = int((time.time() if now is None else now) + lifetime_s)
    return f"{expiry}.{_signature(secret, expiry)}"


def check_link(secret: str, value: str, *, now: float | None = None) -> bool:
    """Whether `value` was made by `sign_link` with this secret and has not run out. In constant time."""
    expiry, _, signature = value.partition(".")
    if not secret or not expiry.isascii() or not expiry.isdigit() or len(expiry) > 12:
        return False
    if int(expiry) < (time.time() if now is None else now):
        return False
    return hmac.compare_digest(signature.encode(), _signature(secret, int(expiry)).encode())


def _signature(secret: str, expiry: int) -> str:
    digest = hmac.new(secret.encode(), str(expiry).encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
