"""The real nats-server on a disk that fills up."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nats.errors
import pytest

from mags.kit import tasks
from mags.kit.nats import Stream, connect, ensure_stream
from mags.supervisor import broker, broker_disk, programs
from mags.supervisor.layout import Layout
from mags.supervisor.ports import free_port

PATIENCE = 60.0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A data directory with little room."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", place], check=True, timeout=60)
    yield place
    subprocess.run(["umount", place], check=True, timeout=60)


async def test_a_full_disk_is_no_end_of_messages(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored before is kept, and more can be stored once there is room: not until then is it started again."""
    monkeypatch.setattr(broker_disk, "LOOK_S", 0.1)
    monkeypatch.setattr(broker_disk, "ROOM", 4 << 20)
    layout, address = Layout(small), f"127.0.0.1:{free_port()}"
    layout.make()
    users = broker.passwords(layout.nats_users)
    layout.nats_config.write_text(programs.nats_configuration(layout, address, users))
    child = programs.broker_child(layout, address, on_restart=lambda: None)
    await child.start()
    watching = asyncio.create_task(broker_disk.BrokerDisk(child, layout.nats).watch())
    client = await connect(broker.url("control", users, address), name="test")
    try:
        jetstream = client.jetstream(timeout=1)
        await ensure_stream(jetstream, Stream("OUT", ("mags.output.*",), 3600, 1 << 30))
        last = 0
        with pytest.raises(nats.errors.TimeoutError):
            while True:
                last = (await jetstream.publish("mags.output.x", os.urandom(500_000))).seq
        await asyncio.sleep(0.5)
        assert child.restarts == 0, "there is no room yet"
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True, timeout=60)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    stored = (await jetstream.publish("mags.output.x", b"more")).seq
                    break
                except nats.errors.Error:
                    await asyncio.sleep(0.1)
        assert stored == last + 1 and child.restarts == 1
        assert len((await jetstream.get_msg("OUT", last)).data or b"") == 500_000
    finally:
        await client.close()
        await tasks.end([watching])
        await child.stop()
