"""Lines from chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mags.control.jobs.lines import MAX_LINE, Line, Lines, decode_positions, encode_positions


def feed(chunks: list[tuple[int, bytes]], lines: Lines | None = None) -> list[Line]:
    lines = lines or Lines()
    offsets = dict(lines.positions)
    out: list[Line] = []
    for moment, (stream, data) in enumerate(chunks):
        out += lines.feed(stream, offsets[stream], data, moment)
        offsets[stream] += len(data)
    return out + list(lines.rest())


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=20))
def test_chunks_do_not_matter(data: bytes, sizes: list[int]) -> None:
    chunks, rest = [], data
    for size in sizes:
        chunks.append((1, rest[:size]))
        rest = rest[size:]
    chunks.append((1, rest))
    whole = [line.text for line in feed([(1, data)])]
    assert [line.text for line in feed(chunks)] == whole
    expected = data.decode(errors="replace").split("\n")
    assert whole == [text.removesuffix("\r") for text in (expected[:-1] if expected[-1] == "" else expected)]


def test_streams_do_not_mix() -> None:
    lines = feed([(1, b"a"), (2, b"x\n"), (1, b"b\n"), (3, b"said")])
    assert [(line.stream, line.text, line.at_ms) for line in lines] == [(2, "x", 1), (1, "ab", 0), (3, "said", 3)]


def test_bytes_that_are_missing_are_spoken_of_in_their_place() -> None:
    lines = Lines()
    found = list(lines.feed(1, 100, b"rest of a line\nhalf", 0))
    found += lines.feed(1, 200, b"other\n", 2)
    assert [(line.stream, line.text.partition(" ")[0]) for line in found] == [
        (3, "(100"),
        (1, "rest"),
        (1, "half"),
        (3, "(81"),
        (1, "other"),
    ]
    assert lines.incomplete and lines.positions == {1: 206, 2: 0, 3: 0}


def test_a_line_without_an_end_is_given_out_in_parts_between_characters() -> None:
    text = "é" * MAX_LINE
    lines = feed([(1, text.encode())])
    assert "".join(line.text for line in lines) == text and len(lines) == 2
    assert all(len(line.text.encode()) <= MAX_LINE for line in lines)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=9)), max_size=12), st.integers(0, 30))
def test_reading_goes_on_behind_any_line(chunks: list[tuple[int, bytes]], number: int) -> None:
    lines = Lines()
    offsets = dict(lines.positions)
    seen: list[tuple[Line, str]] = []
    for stream, data in chunks:
        for line in lines.feed(stream, offsets[stream], data, 0):
            seen.append((line, encode_positions(lines.positions)))
        offsets[stream] += len(data)
    if not seen:
        return
    index = number % len(seen)
    positions = decode_positions(seen[index][1])
    assert positions is not None
    again = Lines(positions)
    rest = {s: b"".join(data for stream, data in chunks if stream == s)[positions[s] :] for s in (1, 2)}
    later = [line for s in (1, 2) for line in again.feed(s, positions[s], rest[s], 0)]
    expected = [line for line, _ in seen[index + 1 :]]
    assert sorted(later, key=lambda line: (line.stream, line.end)) == sorted(
        expected, key=lambda line: (line.stream, line.end)
    )


@given(st.text(max_size=40))
def test_any_text_is_positions_or_nothing(text: str) -> None:
    positions = decode_positions(text)
    assert positions is None or set(positions) == {1, 2, 3}


def test_positions_survive_their_encoding() -> None:
    assert decode_positions(encode_positions({1: 5, 2: 0, 3: 7})) == {1: 5, 2: 0, 3: 7}
