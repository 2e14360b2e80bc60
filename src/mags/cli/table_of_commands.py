"""Every command: the file that does it, and one line of help."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    module: str
    help: str
    group: str


_RUN, _KEEP, _ACCOUNT, _SERVER = "Run things", "Keep things", "Account", "Your own server"

COMMANDS: dict[str, Entry] = {
    "run": Entry("run", "run a script in a microVM of its own", _RUN),
    "new": Entry("new", "make a sandbox that stays", _RUN),
    "exec": Entry("exec", "run a command in a VM that is there", _RUN),
    "ssh": Entry("ssh", "open a shell in a sandbox (made if it isn't there)", _RUN),
    "cp": Entry("cp", "copy files into and out of a VM", _RUN),
    "status": Entry("status", "say how a job is", _RUN),
    "logs": Entry("logs", "show a job's output", _RUN),
    "list": Entry("list", "list jobs", _RUN),
    "stop": Entry("stop", "end a job and its VM", _RUN),
    "set": Entry("set", "change how a VM sleeps, wakes, and is called", _KEEP),
    "sleep": Entry("sleep", "save a VM and free its memory", _KEEP),
    "wake": Entry("wake", "bring a sleeping VM back", _KEEP),
    "sync": Entry("sync", "save a workspace now", _KEEP),
    "resize": Entry("resize", "grow a workspace's disk", _KEEP),
    "workspace": Entry("workspace", "list, delete, export and import workspaces", _KEEP),
    "url": Entry("url", "open a VM's port to the web", _KEEP),
    "cron": Entry("cron", "run scripts by the clock", _KEEP),
    "login": Entry("login", "remember a server and a token", _ACCOUNT),
    "logout": Entry("logout", "forget the token", _ACCOUNT),
    "whoami": Entry("whoami", "say who and where you are", _ACCOUNT),
    "token": Entry("token", "list, make and revoke API tokens", _ACCOUNT),
    "ssh-key": Entry("ssh_key", "list, add and remove your SSH keys", _ACCOUNT),
    "usage": Entry("usage", "say what was used", _ACCOUNT),
    "pool": Entry("pool", "show the hosts and their VMs", _SERVER),
    "up": Entry("up", "start a server on this machine", _SERVER),
    "down": Entry("down", "stop it", _SERVER),
    "doctor": Entry("doctor", "check what a server needs, and say what to do", _SERVER),
    "image": Entry("image", "build, import, list and remove images", _SERVER),
}


def overview() -> str:
    """What `mags --help` prints."""
    lines = ["usage: mags COMMAND [ARGUMENTS]", "", "Scripts in instant microVMs."]
    group = ""
    for name, entry in COMMANDS.items():
        if entry.group != group:
            group = entry.group
            lines += ["", f"{group}:"]
        lines.append(f"  {name:<10} {entry.help}")
    lines += ["", "`mags COMMAND --help` says more. Begin with: mags run 'echo Hello World'"]
    return "\n".join(lines)
