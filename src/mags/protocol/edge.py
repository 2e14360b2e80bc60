"""What an edge asks control, and what each tells the other: public URLs, certificates, SSH.

| subject                   | from -> to           | request -> answer        | meaning                                      |
|---------------------------|----------------------|--------------------------|----------------------------------------------|
| mags.control.resolve      | edge -> control      | Resolve -> Resolved      | whose is this public name                    |
| mags.control.certificate  | edge -> control      | Ask -> Allowed           | may a certificate be had for this name       |
| mags.control.ssh          | edge -> control      | SshAuth -> SshGrant      | may this key open that VM                    |
| mags.control.ssh_ports    | edge -> control      | Empty -> SshPorts        | every VM that has a port of its own          |
| mags.edge.listen          | control -> all edges | Listen -> Done           | open a VM's own port now                     |
| mags.edge.changed         | control -> all edges | Changed (no answer)      | forget what you know of these                |
| mags.edge.presence        | edge -> control      | EdgePresence (no answer) | where it listens, its host key; every 5 s    |
| mags.host.HOST.activity   | edge -> host         | Activity (no answer)     | connections are open; every 5 s while so     |

Answers travel in `messages.Answer`, as those of hosts do. Control's instances share a queue group
(`CONTROL_QUEUE`), so that one of them answers.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Literal

from mags.protocol.messages import Value

CONTROL_QUEUE = "mags-control"
RESOLVE = "mags.control.resolve"
CERTIFICATE = "mags.control.certificate"
SSH = "mags.control.ssh"
SSH_PORTS = "mags.control.ssh_ports"
LISTEN = "mags.edge.listen"
CHANGED = "mags.edge.changed"
EDGE_PRESENCE = "mags.edge.presence"


def activity(host_id: str) -> str:
    """The subject on which a host hears of the connections into its VMs."""
    return f"mags.host.{host_id}.activity"


# --- public URLs --------------------------------------------------------------------------------------------------


class Resolve(Value):
    """`name` is the label before the apps domain (lower case), or a whole host name for a domain of a user."""

    name: str


class Resolved(Value):
    """ok: send it to `port` of `vm_id`. unknown: no such name (404). stopped: its VM has ended for good (410).
    pending: its VM is not placed yet (503)."""

    status: Literal["ok", "unknown", "stopped", "pending"]
    vm_id: str = ""
    host_id: str = ""
    owner: str = ""
    job: str = ""
    """The job's name: what an owner would type after `mags logs`."""
    port: int = 8080
    private: bool = False
    secret: str = ""
    """Of a private URL: its token (header `X-Mags-Token`), and the key with which its links are signed."""


class Ask(Value):
    name: str
    """As in `Resolve`."""


class Allowed(Value):
    allowed: bool


_PORT_AND_NAME = re.compile(r"([1-9][0-9]{0,4})-(.+)")


def split_port(label: str) -> tuple[int, str] | None:
    """(8081, "shop") for "8081-shop"; None when the label names no port. Try the whole label as a name first."""
    match = _PORT_AND_NAME.fullmatch(label)
    if match is None or int(match[1]) > 65535:
        return None
    return int(match[1]), match[2]


LINK_PARAMETER = "mags_key"
"""Query parameter of a signed link; also the name of the cookie that it turns into."""


def sign_link(secret: str, name: str, expires: int) -> str:
    """The value of a signed link to the private URL `name`, good until the Unix time `expires` (seconds)."""
    mac = hmac.new(secret.encode(), f"{name}\n{expires}".encode(), hashlib.sha256).hexdigest()
    return f"{expires}.{mac}"


def link_is_good(secret: str, name: str, value: str, now: float) -> bool:
    """Whether `value` was made by `sign_link` with the same secret and name, and has not expired."""
    expires, dot, _ = value.partition(".")
    if not (secret and dot and expires.isascii() and expires.isdigit() and len(expires) <= 12):
        return False
    return int(expires) >= now and hmac.compare_digest(sign_link(secret, name, int(expires)).encode(), value.encode())


# --- SSH ------------------------------------------------------------------------------------------------------------


class SshAuth(Value):
    """A client has shown that it holds the private key to `key`. (The edge also asks before that, to refuse early;
    so an answer must not have effects.)

    `port` is the VM's own port, or None when it came by the common one. Then `username` says which VM: a job's or
    workspace's name, or `NAME.GUESTUSER`; on a VM's own port it is the guest's user.
    """

    username: str
    key: bytes
    """The public key in SSH's wire form (RFC 4253, 6.6)."""
    fingerprint: str
    """`SHA256:...` as ssh-keygen -l prints it."""
    port: int | None = None
    client: str = ""
    """The client's address, for the record."""


class SshGrant(Value):
    """`allowed` without `vm_id`: the key is good but there is nothing to open; `problem` says why in a sentence."""

    allowed: bool
    vm_id: str = ""
    host_id: str = ""
    owner: str = ""
    job: str = ""
    user: str = "root"
    """The guest's user."""
    problem: str = ""


class SshPorts(Value):
    ports: dict[int, str] = {}
    """Own port -> the job's id."""


class Listen(Value):
    port: int
    job_id: str


class EdgePresence(Value):
    edge_id: str
    version: str = ""
    ssh_host_key: str = ""
    """One line as in known_hosts, without a name: `ssh-ed25519 AAAA...`."""
    ssh_port: int = 0
    ssh_port_range: tuple[int, int] = (0, 0)
    """First and last of the VMs' own ports that this edge can open; (0, 0): none."""
    http_port: int = 0


# --- both -----------------------------------------------------------------------------------------------------------


class Changed(Value):
    """Names, VMs or ports whose records have changed: what an edge remembers of them is void, and connections that
    go elsewhere now are closed. `ports`: own ports that are closed for good."""

    names: list[str] = []
    vms: list[str] = []
    ports: list[int] = []


class Activity(Value):
    vm_id: str
    connections: int
    """Open right now; each counts as activity while it lasts."""
    kind: Literal["url", "ssh"] = "url"
