"""A host as control sees it, over real NATS: a "VM" is a directory, a script is a local process.

It speaks the real protocol, so that control's tests need no microVM: presence, events, output with positions, sessions
with credit. What a test wants to see of trouble it writes into `refuse`, `slow` and `presence`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from mags.kit import tasks
from mags.kit.nats import settle
from mags.protocol import messages, subjects
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from mags.protocol.messages import (
    Event,
    JobEnded,
    Open,
    Opened,
    Output,
    OutputEnd,
    OutputMessage,
    Presence,
    Script,
    Start,
    Started,
    Synced,
    Value,
    VmChanged,
    VmList,
    VmReport,
    WorkspaceSynced,
)
from tests.kit.scripted_edge_host import ScriptedHost as SessionsHost
from tests.kit.scripted_vm import Store, Vm, kill

REQUESTS: dict[str, type[Value]] = {
    "start": messages.Start,
    "run": messages.Run,
    "cancel": messages.Cancel,
    "stop": messages.Stop,
    "exec": messages.Exec,
    "open": messages.Open,
    "files": messages.Files,
    "sync": messages.VmRequest,
    "sleep": messages.VmRequest,
    "wake": messages.VmRequest,
    "adjust": messages.Adjust,
    "resize": messages.Resize,
    "dial": messages.Dial,
    "list": messages.Empty,
    "warm": messages.Warm,
    "drop": messages.Drop,
    "archive": messages.Archive,
    "stored": messages.Stored,
}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class ScriptedHost(SessionsHost):
    """`start` begins to listen and to be present; `aclose` ends everything it started."""

    def __init__(self, nats: Client, home: Path, *, host_id: str = "h1", storage: str = "") -> None:
        super().__init__(nats, home, host_id=host_id)
        self.jetstream = nats.jetstream(timeout=30)
        self.machines: dict[str, Vm] = {}
        self.store = Store(home.parent / "store")
        self.ended: set[str] = set()
        self.refuse: dict[str, Problem] = {}
        """Verb -> what every such request is answered with."""
        self.slow: dict[str, float] = {}
        """Verb -> seconds before it is done."""
        self.mute: set[str] = set()
        """Verbs that are carried out but not answered."""
        self.unsaved = ""
        """Why what VMs have when they are stopped can't be saved."""
        self.calls: list[tuple[str, Any]] = []
        self.presence = Presence(
            host_id=host_id,
            machine_id="here",
            version="1",
            boot=new_id(),
            accelerator="tcg",
            cpus=2,
            memory_mb=16000,
            free_memory_mb=8000,
            free_disk_gb=50.0,
            load=0.1,
            storage=storage,
            local_retention_s=86400.0,
            min_pool_size=1,
            max_pool_size=4,
        )
        self.stored: list[messages.StoredWorkspace] = []
        """What it says is on its volume."""
        self._loops: list[asyncio.Task[None]] = []
        self._jobs: set[asyncio.Task[None]] = set()
        self._subscriptions: list[Any] = []

    async def start(self) -> None:
        subscription = await self.nats.subscribe(subjects.rpc(self.host_id, "*"), cb=self._on_request)
        self._subscriptions.append(subscription)
        self._loops.append(asyncio.create_task(self._be_present()))
        await settle(self.nats)

    async def vanish(self) -> None:
        """Fall silent, as a host that has lost its network."""
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        self._subscriptions.clear()
        await tasks.end(self._loops)
        self._loops.clear()

    async def aclose(self) -> None:
        await self.vanish()
        for vm in self.machines.values():
            vm.kill()
        await tasks.end(self._jobs)
        await super().aclose()
        for vm in self.machines.values():
            vm.kill()  # a start that was under way may have begun another script
            for process in vm.processes.values():
                await process.wait()

    async def announce(self) -> None:
        await self.nats.publish(subjects.presence(self.host_id), messages.encode(self.presence))

    async def _be_present(self) -> None:
        while True:
            await self.announce()
            await asyncio.sleep(0.2)

    def count(self, verb: str) -> int:
        return sum(1 for called, _ in self.calls if called == verb)

    # --- requests -------------------------------------------------------------------------------------------------

    async def _serve(self, message: Msg) -> None:
        verb = message.subject.rpartition(".")[2]
        try:
            wish: Any = messages.decode(message.data, REQUESTS[verb])
            self.calls.append((verb, wish))
            if verb in self.refuse:
                raise self.refuse[verb]
            await asyncio.sleep(self.slow.get(verb, 0))
            answer = messages.answer(await getattr(self, f"_do_{verb}")(wish))
        except Problem as problem:
            answer = messages.refusal(problem)
        except Exception as error:
            answer = messages.refusal(Problem("internal", repr(error)))
        if verb not in self.mute:
            await message.respond(answer)

    def machine(self, vm_id: str) -> Vm:
        vm = self.machines.get(vm_id)
        if vm is None:
            raise Problem("gone" if vm_id in self.ended else "not_found", "There is no such VM on this host.")
        return vm

    async def _awake(self, vm_id: str) -> Vm:
        vm = self.machine(vm_id)
        if vm.state == "sleeping":
            await self._change(vm, "running")
        return vm

    async def _do_start(self, wish: Start) -> Value:
        vm = self.machines.get(wish.vm_id)
        if vm is None:
            if wish.vm_id in self.ended:
                raise Problem("gone", "The script has run already: start another job.")
            home = self.home / wish.vm_id
            home.mkdir(parents=True)
            vm = self.machines[wish.vm_id] = Vm(wish, home, keep=wish.keep)
            if wish.attachment is not None:
                self.store.restore(vm)
        return await self._give(vm, wish.script, "pool")

    async def _do_run(self, wish: messages.Run) -> Value:
        vm = await self._awake(wish.vm_id)
        vm.keep = wish.keep or vm.keep
        return await self._give(vm, wish.script, "parked" if vm.state == "parked" else "warm")

    async def _give(self, vm: Vm, script: Script, kind: Any) -> Started:
        answer = vm.answers.get(script.job_id)
        if answer is None:
            vm.state = "running"
            answer = vm.answers[script.job_id] = Started(start_kind=kind, boot_ms=1, started_at_ms=now_ms())
            task = asyncio.create_task(self._script(vm, script))
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)
        return answer

    async def _do_cancel(self, wish: messages.Cancel) -> Value:
        process = self.machine(wish.vm_id).processes.get(wish.job_id)
        if process is not None:
            kill(process)
        return messages.Done()

    async def _do_stop(self, wish: messages.Stop) -> Value:
        vm = self.machines.get(wish.vm_id)
        if vm is None:
            return messages.Done()
        if vm.start.attachment is not None and not vm.start.attachment.discard:
            await self._sync(vm)
        vm.keep = "stopping"
        await vm.killed()
        await self._end(vm, "failed" if self.unsaved else "gone", self.unsaved)
        return messages.Done()

    async def crash(self, vm_id: str, reason: str = "The VM's hypervisor ended unexpectedly.") -> None:
        """The VM dies by itself."""
        vm = self.machines[vm_id]
        vm.keep = "failed"
        await vm.killed()
        await self._end(vm, "failed", reason)

    async def forget(self, vm_id: str) -> None:
        """The VM is gone and nobody is told."""
        vm = self.machines.pop(vm_id)
        vm.kill()

    async def _do_exec(self, wish: messages.Exec) -> Value:
        return await (await self._awake(wish.vm_id)).exec(wish)

    async def _do_open(self, wish: Open) -> Value:
        vm = await self._awake(wish.vm_id)
        self.vm(wish.vm_id)
        path = vm.path(wish.path or "")
        size = mode = None
        if wish.kind == "read":
            if not path.is_file():
                raise Problem("not_found", f"There is no file {wish.path}.")
            size, mode = path.stat().st_size, path.stat().st_mode & 0o7777
            wish = Open(vm_id=wish.vm_id, session_id=wish.session_id, kind="exec", command=["cat", str(path)])
        elif wish.kind == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            command = ["sh", "-c", f'cat > "$0" && chmod {wish.mode or 0o644:o} "$0"', str(path)]
            wish = Open(vm_id=wish.vm_id, session_id=wish.session_id, kind="exec", command=command)
        opened = await self._open(wish)
        return Opened(window=opened.window, size=size, mode=mode)

    async def _do_files(self, wish: messages.Files) -> Value:
        return (await self._awake(wish.vm_id)).files(wish)

    async def _do_sync(self, wish: messages.VmRequest) -> Value:
        vm = await self._awake(wish.vm_id)
        await self._sync(vm)
        return Synced(synced_at_ms=now_ms(), bytes=10, duration_ms=1, generation=vm.generation)

    async def _do_sleep(self, wish: messages.VmRequest) -> Value:
        await self._change(self.machine(wish.vm_id), "sleeping")
        return messages.Done()

    async def _do_wake(self, wish: messages.VmRequest) -> Value:
        await self._awake(wish.vm_id)
        return messages.Done()

    async def _do_adjust(self, wish: messages.Adjust) -> Value:
        self.machine(wish.vm_id)
        return messages.Done()

    async def _do_resize(self, wish: messages.Resize) -> Value:
        if self.machine(wish.vm_id).start.attachment is None:
            raise Problem("not_available", "Only the disk of a synced workspace can grow.")
        return messages.Done()

    async def _do_drop(self, wish: messages.Drop) -> Value:
        self.store.drop(wish.workspace_id)
        return messages.Done()

    async def _do_stored(self, wish: messages.Stored) -> Value:
        later = sorted((one for one in self.stored if one.id > wish.after), key=lambda one: one.id)
        return messages.StoredList(workspaces=later[: wish.limit])

    async def _do_archive(self, wish: messages.Archive) -> Value:
        self.vm(wish.workspace_id)
        if wish.direction == "export":
            command = ["tar", "-C", str(self.store.of(wish.workspace_id, wish.generation)), "-cf", "-", "."]
        else:
            target = self.store.of(wish.workspace_id, 1)
            target.mkdir(parents=True)
            command = ["tar", "-C", str(target), "-xf", "-"]
        return await self._open(Open(vm_id=wish.workspace_id, session_id=wish.session_id, kind="exec", command=command))

    async def _do_list(self, wish: messages.Empty) -> Value:
        return VmList(
            vms=[
                VmReport(vm_id=vm_id, state=vm.state, owner=vm.start.owner, jobs=list(vm.processes))
                for vm_id, vm in self.machines.items()
            ]
        )

    async def _sync(self, vm: Vm) -> None:
        attachment = vm.start.attachment
        assert attachment is not None
        size = self.store.sync(vm)
        await self._report(
            WorkspaceSynced(
                vm_id=vm.start.vm_id,
                workspace_id=attachment.workspace_id,
                epoch=attachment.epoch,
                generation=vm.generation,
                bytes=10,
                size_bytes=size,
                at_ms=now_ms(),
            )
        )

    # --- scripts --------------------------------------------------------------------------------------------------

    async def _script(self, vm: Vm, script: Script) -> None:
        code: int | None = None
        text = script.script if script.script is not None else f"echo fetched {script.url}" if script.url else None
        positions = {1: 0, 2: 0, 3: 0}
        if text is not None:
            source = self.home / f"{script.job_id}.sh"
            source.write_text(text)
            process = await vm.spawn(script, source)
            assert process.stdout and process.stderr
            await asyncio.gather(
                self._pump(script.job_id, 1, process.stdout, positions),
                self._pump(script.job_id, 2, process.stderr, positions),
            )
            status = await process.wait()
            code = status if status >= 0 else None
        error = None if code is not None or text is None else "The script was ended."
        code = 0 if text is None else code
        await self._say(script.job_id, OutputEnd(exit_code=code, error=error, at_ms=now_ms()), positions)
        await self._report(
            JobEnded(
                vm_id=vm.start.vm_id,
                job_id=script.job_id,
                exit_code=code,
                error=error,
                started=vm.answers.get(script.job_id),
                ended_at_ms=now_ms(),
                cpu_ms=5,
            )
        )
        vm.processes.pop(script.job_id, None)
        if vm.keep == "job" and not vm.processes:
            await self._end(vm, "gone", "")
        elif vm.keep == "park" and not vm.processes:
            await self._change(vm, "parked")

    async def _pump(self, job_id: str, stream: int, source: asyncio.StreamReader, positions: dict[int, int]) -> None:
        while data := await source.read(256 << 10):
            offset, positions[stream] = positions[stream], positions[stream] + len(data)
            await self._say(job_id, Output(stream=stream, offset=offset, data=data, at_ms=now_ms()), positions)

    async def _say(self, job_id: str, value: OutputMessage, positions: dict[int, int]) -> None:
        headers = {subjects.OUTPUT_POSITION: ",".join(str(positions[stream]) for stream in (1, 2, 3))}
        await self.jetstream.publish(subjects.output(job_id), messages.encode(value), headers=headers)

    async def _report(self, event: Event) -> None:
        await self.jetstream.publish(subjects.event(self.host_id), messages.encode(event))

    async def _change(self, vm: Vm, state: str) -> None:
        vm.state = state
        await self._report(VmChanged(vm_id=vm.start.vm_id, state=state, at_ms=now_ms()))

    async def _end(self, vm: Vm, state: str, reason: str) -> None:
        if self.machines.pop(vm.start.vm_id, None) is not None:
            self.ended.add(vm.start.vm_id)
            await self._report(VmChanged(vm_id=vm.start.vm_id, state=state, reason=reason, at_ms=now_ms()))
