"""Scripts in real VMs, from the request to the last byte of output."""

from __future__ import annotations

import asyncio

import pytest
from nats.js.errors import NotFoundError

from mags.host.machines.uploads import BUCKET
from mags.protocol import messages as m
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id
from tests.kit.host_world import Caller, HostProgram

pytestmark = pytest.mark.vm


async def test_a_script_runs_in_a_vm_of_its_own(caller: Caller, host: HostProgram) -> None:
    script = 'echo hello; echo oops >&2; hostname; pwd; echo "$A $B"; exit 3'
    vm_id, job_id = await caller.start(script, environment={"A": "1", "B": "2"}, script_environment={"B": "3"})
    ended = await caller.ended(job_id)
    assert ended.stdout == b"hello\nmags-vm\n/root\n1 3\n"
    assert ended.stderr == b"oops\n"
    assert ended.exit_code == 3 and ended.error is None
    event = await caller.told(m.JobEnded, job_id=job_id)
    assert event.exit_code == 3 and event.vm_id == vm_id and event.started
    await caller.told(m.VmChanged, vm_id=vm_id, state="gone")
    await host.forgets(vm_id)
    with pytest.raises(Problem) as caught:
        await caller.exec(vm_id, "true")
    assert caught.value.code == "gone"


async def test_a_start_is_carried_out_once_however_often_it_is_asked(caller: Caller) -> None:
    vm_id, job_id = new_id(), new_id()
    wish = m.Start(
        vm_id=vm_id,
        spec=m.VmSpec(memory_mb=256),
        owner="tester",
        script=m.Script(job_id=job_id, script="echo once"),
        keep="job",
    )
    answers = await asyncio.gather(*(caller.ask("start", wish, m.Started) for _ in range(3)))
    assert answers[0] == answers[1] == answers[2]
    assert (await caller.ended(job_id)).stdout == b"once\n"
    await caller.told(m.VmChanged, vm_id=vm_id, state="gone")
    assert await caller.ask("start", wish, m.Started) == answers[0]
    assert (await caller.ended(job_id)).stdout == b"once\n"


async def test_a_script_ends_by_time_out_by_a_signal_and_by_wish(caller: Caller) -> None:
    vm_id, slow = await caller.start("echo begun; trap '' TERM; sleep 1000", timeout_s=1, keep="stay")
    ended = await caller.ended(slow)
    assert ended.exit_code == 124 and ended.stdout == b"begun\n" and b"time-out" in ended.system
    ended = await caller.run(vm_id, "kill -KILL $$")
    assert ended.exit_code == 137 and ended.error is None

    job_id = new_id()
    script = m.Script(job_id=job_id, script="echo up; sleep 1000")
    started = await caller.ask("run", m.Run(vm_id=vm_id, script=script), m.Started)
    assert started.start_kind == "warm"
    await caller.ask("cancel", m.Cancel(vm_id=vm_id, job_id=job_id), m.Done)
    ended = await caller.ended(job_id)
    assert ended.exit_code is None and ended.error == "The script was cancelled."
    await caller.ask("cancel", m.Cancel(vm_id=vm_id, job_id=job_id), m.Done)


async def test_a_stop_ends_scripts_that_do_not_want_to(caller: Caller, host: HostProgram) -> None:
    vm_id, job_id = await caller.start("trap '' TERM; echo up; while :; do sleep 1; done")
    await caller.stop(vm_id)
    ended = await caller.ended(job_id)
    assert ended.exit_code is None and ended.error == "The job was stopped."
    await caller.told(m.VmChanged, vm_id=vm_id, state="gone")
    await host.forgets(vm_id)
    assert host.vms() == []
    await caller.stop(vm_id)


async def test_a_workspaces_vm_is_parked_and_serves_the_next_script(caller: Caller) -> None:
    vm_id, job_id = await caller.start("echo kept > /root/file", keep="park")
    assert (await caller.ended(job_id)).exit_code == 0
    await caller.told(m.VmChanged, vm_id=vm_id, state="parked")
    job_id = new_id()
    script = m.Script(job_id=job_id, script="cat /root/file")
    started = await caller.ask("run", m.Run(vm_id=vm_id, script=script), m.Started)
    assert started.start_kind == "parked"
    assert (await caller.ended(job_id)).stdout == b"kept\n"
    reports = (await caller.ask("list", m.Empty(), m.VmList)).vms
    assert [(r.vm_id, r.owner) for r in reports] == [(vm_id, "tester")]


async def test_a_vm_without_a_script_comes_up_and_stays(caller: Caller) -> None:
    vm_id, job_id = await caller.start(None, keep="stay", environment={"WHO": "me"})
    ended = await caller.ended(job_id)
    assert (ended.exit_code, ended.stdout) == (0, b"")
    result = await caller.exec(vm_id, "echo $WHO; uname -r; test -e /etc/machine-id")
    assert result.exit_code == 0 and result.stdout.startswith(b"me\n")


async def test_a_script_is_fetched_inside_the_vm(caller: Caller) -> None:
    serve = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\necho fetched' | nc -l -p 8000; done"
    vm_id, _ = await caller.start(f"({serve}) >/dev/null 2>&1 & sleep 0.2", keep="stay")
    job_id = new_id()
    script = m.Script(job_id=job_id, url="http://127.0.0.1:8000/script.sh")
    await caller.ask("run", m.Run(vm_id=vm_id, script=script), m.Started)
    ended = await caller.ended(job_id)
    assert (ended.stdout, ended.exit_code) == (b"fetched\n", 0), ended.stderr

    job_id = new_id()
    script = m.Script(job_id=job_id, url="http://127.0.0.1:9/none")
    await caller.ask("run", m.Run(vm_id=vm_id, script=script), m.Started)
    ended = await caller.ended(job_id)
    assert ended.exit_code == 125 and b"could not be fetched from http://127.0.0.1:9/none" in ended.stderr


async def test_uploaded_files_are_there_before_the_script(caller: Caller) -> None:
    jetstream = caller.client.jetstream()
    try:
        store = await jetstream.object_store(BUCKET)
    except NotFoundError:
        store = await jetstream.create_object_store(BUCKET)
    content = bytes(range(256)) * 2000
    await store.put("file-1", content)
    reference = m.FileReference(file_id="file-1", name="a b.bin", size=len(content))
    ended = await caller.whole("wc -c < '/root/a b.bin'; cmp '/root/a b.bin' '/uploads/a b.bin'", files=[reference])
    assert (ended.stdout.strip(), ended.exit_code) == (str(len(content)).encode(), 0)

    with pytest.raises(Problem) as caught:
        await caller.start("true", files=[m.FileReference(file_id="none", name="x", size=1)])
    assert caught.value.code == "not_found" and "'x'" in caught.value.message


@pytest.mark.parametrize(
    ("spec", "code"),
    [(m.VmSpec(image="no-such-image"), "invalid"), (m.VmSpec(memory_mb=256, image="../x"), "invalid")],
)
async def test_a_start_that_can_not_be_says_why_and_leaves_nothing(
    caller: Caller, host: HostProgram, spec: m.VmSpec, code: str
) -> None:
    with pytest.raises(Problem) as caught:
        await caller.start("true", spec=spec)
    assert caught.value.code == code and "image" in caught.value.message
    assert host.vms() == [] and (await caller.ask("list", m.Empty(), m.VmList)).vms == []


async def test_unreadable_requests_and_unknown_vms_are_refused(caller: Caller) -> None:
    for verb, value, code in [
        ("exec", m.Exec(vm_id="none", command="true"), "not_found"),
        ("start", m.Empty(), "bad_request"),
        ("fly", m.Empty(), "bad_request"),
        ("dial", m.Dial(vm_id="none", port=99999), "invalid"),
        ("sleep", m.VmRequest(vm_id="none"), "not_found"),
    ]:
        with pytest.raises(Problem) as caught:
            await caller.ask(verb, value, m.Done)
        assert caught.value.code == code, verb
    await caller.stop("none")
