"""Processes on a pseudo terminal."""

from __future__ import annotations

import hashlib
import signal

from mags.host.guest import Channel, Exec, Terminal
from tests.guest.kit import collect, read_until, run, shell


async def test_a_terminal_has_a_size_and_a_name(channel: Channel) -> None:
    script = b"stty size; test -t 0 && test -t 1 && test -t 2 && tty; echo $TERM"
    outcome = await run(channel, Exec(script=script, terminal=Terminal(33, 77)))
    size, name, term = outcome.stdout.decode().splitlines()
    assert (size, term) == ("33 77", "xterm-256color")
    assert name.startswith("/dev/pts/")


async def test_what_is_typed_is_echoed_and_read(channel: Channel) -> None:
    process = await channel.exec(Exec(script=b"read line; echo got $line", terminal=Terminal()))
    await process.write_stdin(b"hello\n")
    outcome = await collect(process)
    assert outcome.stdout == b"hello\r\ngot hello\r\n"


async def test_interrupt_from_the_keyboard(channel: Channel) -> None:
    process = await channel.exec(
        Exec(script=b"trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.01; done", terminal=Terminal())
    )
    await read_until(process, b"ready\r\n")
    await process.write_stdin(b"\x03")
    outcome = await collect(process)
    assert b"caught" in outcome.stdout and outcome.exit.code == 5


async def test_a_new_size_is_announced(channel: Channel) -> None:
    script = b"trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    process = await channel.exec(Exec(script=script, terminal=Terminal(10, 20)))
    await read_until(process, b"ready\r\n")
    await process.resize(50, 132)
    assert b"50 132" in (await collect(process)).stdout


async def test_a_signal_reaches_the_foreground_job_only(channel: Channel) -> None:
    job = "trap 'echo job; exit 3' USR1; echo ready; while :; do read line; done"
    script = f"set -m; trap 'echo shell' USR1; sh -c \"{job}\"; echo $?".encode()
    process = await channel.exec(Exec(script=script, terminal=Terminal()))
    await read_until(process, b"ready\r\n")
    await process.signal(signal.SIGUSR1)
    outcome = await collect(process)
    assert outcome.stdout == b"job\r\n3\r\n"


async def test_the_last_output_is_delivered_before_the_exit(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b"seq 1 3000", terminal=Terminal()))
    assert outcome.stdout == "".join(f"{n}\r\n" for n in range(1, 3001)).encode()


async def test_a_terminal_is_not_hung_up_while_its_process_lives(channel: Channel) -> None:
    script = b"exec 0<&- 1>&- 2>&-; sleep 0.2; exec >/dev/tty; echo back"
    outcome = await run(channel, Exec(script=script, terminal=Terminal()))
    assert (outcome.stdout, outcome.exit.code) == (b"back\r\n", 0)


async def test_what_is_left_on_a_terminal_is_hung_up_at_its_end(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b"sleep 1000 & echo $!", terminal=Terminal()))
    pid = int(outcome.stdout.splitlines()[-1])
    gone = f"for i in $(seq 500); do kill -0 {pid} 2>/dev/null || exit 0; sleep 0.02; done; exit 1"
    await shell(channel, gone)


async def test_a_big_paste_arrives_whole(channel: Channel) -> None:
    script = b"stty raw -echo; echo ready; head -c 200000 | sha1sum"
    process = await channel.exec(Exec(script=script, terminal=Terminal()))
    await read_until(process, b"ready\n")
    await process.write_stdin(b"x" * 200_000)
    outcome = await collect(process)
    assert outcome.stdout.split()[0].decode() == hashlib.sha1(b"x" * 200_000).hexdigest()
    assert outcome.exit.code == 0
