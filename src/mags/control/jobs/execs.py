"""One command in a VM, its whole output in the answer."""

from __future__ import annotations

from typing import Any

from mags.control.http import with_warnings
from mags.control.jobs.schemas import ExecRequest
from mags.control.lifecycles.reaching import reach
from mags.control.lifecycles.world import World
from mags.control.records.accounts import Caller
from mags.protocol.messages import Exec, ExecResult

DEFAULT_TIMEOUT = 30.0
SLACK = 60.0
"""Seconds beyond the command's own time-out for waking the VM and for the way."""


async def run_command(world: World, caller: Caller, reference: str, request: ExecRequest) -> dict[str, Any]:
    """Wakes a sleeping VM. A command that takes too long is killed with its group and answers 124."""
    reached = await reach(world, caller.user_id, reference)
    timeout = request.timeout or DEFAULT_TIMEOUT
    result = await reached.ask(
        "exec",
        Exec(
            vm_id=reached.vm.id,
            command=request.command,
            environment=request.environment or {},
            workdir=request.workdir,
            user=request.user,
            stdin=(request.stdin or "").encode(),
            timeout_s=timeout,
        ),
        ExecResult,
        timeout=timeout + SLACK,
    )
    answer = {
        "exit_code": 124 if result.timed_out else result.exit_code,
        "stdout": result.stdout.decode(errors="replace"),
        "stderr": result.stderr.decode(errors="replace"),
        "duration_ms": result.duration_ms,
        "truncated": result.truncated,
    }
    return with_warnings(answer, request)
