"""A script's output on its way to JetStream: every byte once and in order, whatever crashes in between.

Each message says which one it must follow (the subject's last sequence), so a message that was stored without our
hearing of it is not stored again; and which position it ends at, so that the last one tells a restarted host where
to go on. One message is under way at a time; what arrives meanwhile makes the next one larger.
"""

from __future__ import annotations

import msgspec
from nats.js.api import Header

from mags.host.machines.events import now_ms
from mags.host.machines.journal import Away, Journal, Moved
from mags.protocol import subjects
from mags.protocol.guest import STDERR, STDOUT
from mags.protocol.messages import Output, OutputEnd, Value, decode_output, encode

SYSTEM = 3
"""The platform's own words."""
_EXPECTED = Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value


class OutputWriter:
    """Of one job. Not for two tasks at once. `after_end`: for output that comes after the script's."""

    def __init__(self, journal: Journal, job_id: str, *, after_end: bool = False) -> None:
        self._journal, self._after_end = journal, after_end
        self._subject = subjects.output(job_id)
        self._sequence = 0
        self._position = {STDOUT: 0, STDERR: 0, SYSTEM: 0}
        self.ended = False

    @property
    def position(self) -> tuple[int, int]:
        """Bytes of stdout and stderr that are stored."""
        return self._position[STDOUT], self._position[STDERR]

    async def recover(self) -> None:
        """Go on where an earlier host program stopped."""
        attempt = 0
        while True:
            try:
                stored = await self._look()
                break
            except Away:
                await self._journal.wait(attempt, self._subject)
                attempt += 1
        if stored is not None:
            self._position = stored

    def start_at(self, stdout: int, stderr: int) -> None:
        """What came before is stored no more (the stream keeps only so much), and the guest does not have it."""
        self._position[STDOUT], self._position[STDERR] = stdout, stderr

    async def write(self, stream: int, offset: int, data: bytes) -> None:
        """Returns when stored. What of it is stored already is left out."""
        end = offset + len(data)
        attempt = 0
        while (start := max(offset, self._position[stream])) < end and not self.ended:
            message = Output(stream=stream, offset=start, data=data[start - offset :], at_ms=now_ms())
            await self._append(message, {**self._position, stream: end}, attempt)
            attempt += 1

    async def say(self, sentence: str) -> None:
        """Words of the platform's own, a line."""
        await self.write(SYSTEM, self._position[SYSTEM], f"{sentence}\n".encode())

    async def end(self, exit_code: int | None, error: str | None) -> None:
        """Nothing follows. Harmless if repeated."""
        message = OutputEnd(exit_code=exit_code, error=error, at_ms=now_ms())
        attempt = 0
        while not self.ended:
            self.ended = await self._append(message, self._position, attempt) or self.ended
            attempt += 1

    async def _append(self, message: Value, after: dict[int, int], attempt: int) -> bool:
        """One try. False: it was perhaps not stored; what is stored has been looked up."""
        position = ",".join(str(after[stream]) for stream in (STDOUT, STDERR, SYSTEM))
        headers = {_EXPECTED: str(self._sequence), subjects.OUTPUT_POSITION: position}
        try:
            self._sequence = await self._journal.append(self._subject, encode(message), headers)
            self._position = after
            return True
        except (Away, Moved):
            await self._journal.wait(attempt, self._subject)
        try:
            stored = await self._look()
        except Away:
            return False
        if stored is not None:
            self._position = {stream: max(own, stored[stream]) for stream, own in self._position.items()}
        return False

    async def _look(self) -> dict[int, int] | None:
        """Where the last stored message ends; remembers its sequence. None: there is none."""
        last = await self._journal.last(subjects.OUTPUT_STREAM, self._subject)
        if last is None:
            self._sequence = 0
            return None
        self._sequence = last.sequence
        try:
            self.ended = isinstance(decode_output(last.data), OutputEnd) and not self._after_end
            numbers = [int(word) for word in last.headers[subjects.OUTPUT_POSITION].split(",")]
            return dict(zip((STDOUT, STDERR, SYSTEM), numbers, strict=True))
        except (KeyError, ValueError, msgspec.DecodeError):
            return None  # not ours; we write after it
