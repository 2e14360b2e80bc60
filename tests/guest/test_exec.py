"""Processes: what they see, what comes back."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from mags.host.guest import Channel, Configure, Exec, GuestError
from tests.guest.kit import collect, run, shell


async def test_a_script_gives_its_output_and_its_exit_code(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b"echo out; echo err >&2; exit 3"))
    assert (outcome.exit.code, outcome.stdout, outcome.stderr) == (3, b"out\n", b"err\n")
    assert outcome.exit.exit_code == 3


async def test_arguments_arrive_as_they_are(channel: Channel) -> None:
    words = ["printf", "[%s]", "", "a b", "$HOME", "ü\n'\""]
    outcome = await run(channel, Exec(argv=words))
    assert outcome.stdout.decode() == "[][a b][$HOME][ü\n'\"]"


async def test_a_script_has_positional_parameters(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b'echo "$#" "$2"', argv=["one", "two words"]))
    assert outcome.stdout == b"2 two words\n"


async def test_programs_are_found_in_the_path_of_their_own_environment(channel: Channel) -> None:
    outcome = await run(channel, Exec(argv=["true"], environment={"PATH": "/nowhere:/also/nowhere"}))
    assert (outcome.exit.error, outcome.exit.exit_code) == (2, 127)
    outcome = await run(channel, Exec(argv=["true"], environment={"PATH": "/nowhere:/bin:/usr/bin"}))
    assert outcome.exit.code == 0


async def test_what_cannot_be_started_says_why(channel: Channel, tmp_path: Path) -> None:
    tool, lost, closed = tmp_path / "tool", tmp_path / "lost", tmp_path / "closed"
    tool.write_bytes(b"\x7fnot a program")
    lost.write_text("#! /no/such/interpreter -x\n")
    closed.mkdir(mode=0o700)
    tool.chmod(0o755)
    lost.chmod(0o755)
    script = b"#!/no/such/python\nprint()\n"
    missing = "No such file or directory"
    alone = {"PATH": str(tmp_path)}
    for wish, code, message in [
        (Exec(argv=["/etc/passwd"]), 126, "/etc/passwd: Permission denied"),
        (Exec(argv=["/no/such"]), 127, "/no/such: No such file or directory"),
        (Exec(argv=[""]), 127, "the empty name: No such file or directory"),
        (Exec(argv=["no-such"], environment={"PATH": "/bin:/x"}), 127, "no-such: not found in /bin:/x"),
        (Exec(argv=["closed"], environment=alone), 126, f"{closed}: Permission denied"),
        (Exec(argv=[str(tool)]), 126, f"{tool}: Exec format error"),
        (Exec(argv=["lost"], environment=alone), 127, f"{lost}: its interpreter is missing: /no/such/interpreter"),
        (Exec(script=script), 127, "the script: its interpreter is missing: /no/such/python"),
        (Exec(argv=["true"], cwd="/no"), 126, f"the directory to start in, /no: {missing}"),
        (Exec(argv=["true"], cwd="/" + "é" * 99), 126, f"the directory to start in, /{'é' * 74}\ufffd: {missing}"),
        (Exec(argv=["true"], cwd="/etc/passwd"), 126, "the directory to start in, /etc/passwd: Not a directory"),
        (Exec(argv=["true"], user="ghost"), 126, "no such user: ghost"),
        (Exec(argv=["true"], user="u" * 200), 126, "no such user: " + "u" * 100),
        (Exec(argv=["true"], user="0:wheel"), 126, "a group is given by its number, not as: wheel"),
    ]:
        outcome = await run(channel, wish)
        assert (outcome.exit.code, outcome.exit.exit_code) == (None, code), wish
        assert outcome.exit.message == message, outcome


async def test_environment_is_merged_request_over_configured_over_default(channel: Channel) -> None:
    await channel.configure(Configure(environment={"COLOUR": "red", "SHAPE": "round", "LANG": "C"}))
    script = b'echo "$COLOUR $SHAPE $LANG $HOME $USER $PATH"'
    outcome = await run(channel, Exec(script=script, environment={"COLOUR": "blue"}))
    expected = "blue round C /root root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    assert outcome.stdout.decode() == expected


async def test_a_later_configure_replaces_a_variable(channel: Channel) -> None:
    await channel.configure(Configure(environment={"A": "1", "B": "1"}))
    await channel.configure(Configure(environment={"A": "2"}))
    assert await shell(channel, "echo $A$B") == "21\n"


async def test_it_begins_in_the_home_directory_or_where_it_is_told(channel: Channel) -> None:
    assert await shell(channel, "pwd") == "/root\n"
    assert (await run(channel, Exec(argv=["pwd"], cwd="/usr"))).stdout == b"/usr\n"


async def test_a_long_script_runs_from_a_file_that_is_gone_afterwards(channel: Channel) -> None:
    filler = b"# " + b"x" * 76 + b"\n"
    script = filler * (1024 * 1024 // len(filler) - 1) + b'echo "$0 $1"\n'
    outcome = await run(channel, Exec(script=script, argv=["argument"]))
    path, argument = outcome.stdout.decode().split()
    assert argument == "argument"
    assert (await run(channel, Exec(argv=["test", "-e", path]))).exit.code == 1


async def test_a_script_chooses_its_interpreter(channel: Channel) -> None:
    script = b"#!/usr/bin/env python3\nimport sys\nprint(sys.version_info.major, sys.argv[1])\n"
    outcome = await run(channel, Exec(script=script, argv=["x"]))
    assert outcome.stdout == b"3 x\n"


async def test_line_ends_of_another_world_are_understood(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b"if true; then\r\n  echo yes\r\nfi\r\n"))
    assert (outcome.stdout, outcome.exit.code) == (b"yes\n", 0)
    outcome = await run(channel, Exec(script=b"printf 'a\r\n'"))
    assert outcome.stdout == b"a\n", "the first line ends in CRLF, so it is taken for a line end"


@pytest.mark.parametrize(
    ("user", "expected"),
    [("nobody", "65534:65534"), ("65534", "65534:65534"), ("1234", "1234:1234"), ("1234:5", "1234:5"), ("", "0:0")],
)
async def test_it_runs_as_the_wished_user(channel: Channel, user: str, expected: str) -> None:
    outcome = await run(channel, Exec(script=b'echo "$(id -u):$(id -g)"; id -G', user=user, cwd="/"))
    ids, groups = outcome.stdout.decode().split("\n")[:2]
    assert ids == expected
    assert groups.split() == [expected.split(":")[1]]


async def test_an_unknown_user_starts_nothing(channel: Channel) -> None:
    outcome = await run(channel, Exec(argv=["true"], user="nobody-knows-me"))
    assert outcome.exit.error is not None and outcome.exit.code is None


async def test_stdin_is_empty_unless_asked_for(channel: Channel) -> None:
    assert (await run(channel, Exec(argv=["cat"]))).stdout == b""


async def test_nothing_of_the_agent_leaks_into_a_process(channel: Channel) -> None:
    listing = await shell(channel, "ls /proc/self/fd; cat /proc/self/status")
    fds = [line for line in listing.splitlines() if line.isdigit()]
    assert fds == ["0", "1", "2", "3"], "3 is the directory that ls reads"
    for name in ("SigBlk", "SigIgn", "SigCgt"):
        assert f"{name}:\t0000000000000000" in listing


async def test_each_process_leads_a_session_of_its_own(channel: Channel) -> None:
    first = (await shell(channel, "echo $$; cut -d' ' -f6 /proc/$$/stat")).split()
    assert first[0] == first[1]


async def test_limits_are_set(channel: Channel) -> None:
    """(Not of core dumps: once this process has opened a hypervisor, no child of it may have any.)"""
    wish = Exec(
        script=b"ulimit -n; ulimit -Hn; ulimit -t; ulimit -Ht",
        limits={resource.RLIMIT_NOFILE: (77, 88), resource.RLIMIT_CPU: (1000, -1)},
    )
    assert (await run(channel, wish)).stdout == b"77\n88\n1000\nunlimited\n"


async def test_a_killed_process_says_by_which_signal(channel: Channel) -> None:
    outcome = await run(channel, Exec(script=b"kill -TERM $$"))
    assert (outcome.exit.code, outcome.exit.signal, outcome.exit.exit_code) == (None, signal.SIGTERM, 143)


async def test_many_processes_run_at_once(channel: Channel) -> None:
    wishes = [Exec(script=f"sleep 0.1; echo {n}".encode()) for n in range(60)]
    processes = [await channel.exec(wish) for wish in wishes]
    outputs = [(await collect(process)).stdout for process in processes]
    assert outputs == [f"{n}\n".encode() for n in range(60)]


async def test_more_processes_than_it_can_hold_are_refused_and_room_comes_back(channel: Channel) -> None:
    processes = [await channel.exec(Exec(argv=["true"])) for _ in range(130)]
    exits = [await process.wait() for process in processes]
    refused = [ended for ended in exits if ended.error is not None]
    assert len(refused) == 2
    assert all(ended.message == "too many commands at once in this VM" for ended in refused)
    for process in processes:
        await process.release()
    assert await shell(channel, "echo again") == "again\n"


async def test_after_a_failed_configure_nothing_starts_until_one_succeeds(channel: Channel) -> None:
    with pytest.raises(GuestError) as caught:
        await channel.configure_and_exec(Configure(hostname="bad\nname"), Exec(argv=["true"]))
    assert caught.value.errno_name == "EINVAL"
    outcome = await run(channel, Exec(argv=["true"]))
    assert outcome.exit.message == "the VM could not be configured"
    await channel.configure(Configure(environment={"A": "b"}))
    assert (await run(channel, Exec(argv=["true"]))).exit.code == 0


async def test_configure_and_exec_take_one_round_trip(channel: Channel) -> None:
    configured, process = await channel.configure_and_exec(Configure(environment={"A": "b"}), Exec(script=b"echo $A"))
    assert len(configured.confirmed) == 1
    assert (await collect(process)).stdout == b"b\n"
