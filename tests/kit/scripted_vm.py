"""A "VM" of a scripted host: a directory, and local processes in it. A workspace's generation is a copy of that, seen
by every host of the test."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

from mags.protocol.errors import Problem
from mags.protocol.messages import Exec, ExecResult, FileEntry, Files, FilesResult, Script, Start, Started


@dataclass
class Vm:
    start: Start
    home: Path
    state: str = "running"
    keep: str = "job"
    generation: int = 0
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    """Of scripts, by job."""
    answers: dict[str, Started] = field(default_factory=dict)

    async def spawn(self, script: Script, source: Path) -> asyncio.subprocess.Process:
        """Run a job's script; `kill` ends it."""
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", source, cwd=self.home, env=self._environment(script.environment),
            start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 20,
        )  # fmt: skip
        self.processes[script.job_id] = process
        return process

    def kill(self) -> None:
        """Every script. Whoever follows it takes it out of `processes`."""
        for process in list(self.processes.values()):
            kill(process)

    async def killed(self) -> None:
        self.kill()
        while self.processes:
            await asyncio.sleep(0.005)

    async def exec(self, wish: Exec) -> ExecResult:
        argv = ["/bin/sh", "-c", wish.command] if isinstance(wish.command, str) else wish.command
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=self.home, env=self._environment(wish.environment), start_new_session=True,
            stdin=asyncio.subprocess.PIPE if wish.stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        timed_out = False
        try:
            async with asyncio.timeout(wish.timeout_s):
                out, err = await process.communicate(wish.stdin or None)
        except TimeoutError:
            timed_out = True
            kill(process)
            out, err = await process.communicate()
        status = process.returncode or 0
        return ExecResult(
            exit_code=124 if timed_out else status if status >= 0 else 128 - status,
            stdout=out[: wish.limit],
            stderr=err[: wish.limit],
            timed_out=timed_out,
            truncated=max(len(out), len(err)) > wish.limit,
        )

    def path(self, path: str) -> Path:
        """Where a path of the guest is: /root is the directory itself."""
        return self.home / path.removeprefix("/root/") if path.startswith("/root/") else self.home / path.lstrip("/")

    def files(self, wish: Files) -> FilesResult:
        path = self.path(wish.path if wish.path != "/root" else "/root/")
        if not path.exists():
            raise Problem("not_found", f"There is no {wish.path}.")
        if wish.action == "remove":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            return FilesResult()
        return FilesResult(
            entries=[
                FileEntry(
                    name=entry.name,
                    type="directory" if entry.is_dir() else "file",
                    size=entry.stat().st_size,
                    mode=entry.stat().st_mode,
                    uid=0,
                    gid=0,
                    modified_ms=0,
                )
                for entry in sorted(path.iterdir())
            ]
        )

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), **self.start.environment, **more}


class Store:
    """The object store: WORKSPACE/GENERATION."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, workspace_id: str, generation: int) -> Path:
        return self._folder / workspace_id / str(generation)

    def restore(self, vm: Vm) -> None:
        attachment = vm.start.attachment
        assert attachment is not None
        vm.generation = attachment.generation
        source = self.of(attachment.workspace_id, attachment.generation)
        if attachment.base is not None:
            source = self.of(attachment.base, attachment.base_generation)
        if source.exists():
            shutil.copytree(source, vm.home, dirs_exist_ok=True)

    def sync(self, vm: Vm) -> int:
        """A new generation; its size in bytes."""
        attachment = vm.start.attachment
        assert attachment is not None
        vm.generation += 1
        target = self.of(attachment.workspace_id, vm.generation)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(vm.home, target)
        return sum(path.stat().st_size for path in target.rglob("*") if path.is_file())

    def drop(self, workspace_id: str) -> None:
        shutil.rmtree(self._folder / workspace_id, ignore_errors=True)


def kill(process: asyncio.subprocess.Process) -> None:
    """With all that it has started."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, SIGKILL)
        except ProcessLookupError:
            pass
