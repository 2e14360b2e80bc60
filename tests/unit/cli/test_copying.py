from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from mags.cli import copying
from mags.cli.command import Refused
from mags.cli.copying import Place
from mags.sdk.frames import Chunk
from mags.sdk.process import Process
from mags.sdk.testing import Answer, SeenRequest
from tests.unit.cli.conftest import Mags

NO_FILE = (404, {"error": "There is no such file.", "code": "not_found"})


@pytest.mark.parametrize(("word", "place"), [
    ("dev:/root/a", Place("dev", "/root/a")), ("dev:", Place("dev", "")), ("dev:a:b", Place("dev", "a:b")),
    ("./a:b", Place(None, "./a:b")), ("/a:b", Place(None, "/a:b")), ("plain", Place(None, "plain")),
    ("-", Place(None, "-")),
])  # fmt: skip
def test_a_name_before_a_colon_is_a_vm(word: str, place: Place) -> None:
    assert copying.parse(word) == place


def test_a_colon_without_a_name_is_refused() -> None:
    with pytest.raises(Refused):
        copying.parse(":/root")


def test_relative_paths_begin_at_home() -> None:
    assert [copying.absolute(path) for path in ("/a", "a/b", "")] == ["/a", "/root/a/b", "/root"]


def vm(request: SeenRequest) -> Answer:
    if request.path.endswith("/exec"):
        return {"exit_code": 0 if request.json["command"] in (["test", "-d", "/root"], ["test", "-d", "/srv"]) else 1}
    return b"content" if request.method == "GET" else {}


def test_a_file_goes_to_its_name_or_into_a_directory(mags: Mags, tmp_path: Path) -> None:
    local = tmp_path / "a.sh"
    local.write_text("x")
    local.chmod(0o755)
    for target, path in [
        ("dev:/srv/b", "/srv/b"),
        ("dev:/srv", "/srv/a.sh"),
        ("dev:", "/root/a.sh"),
        ("dev:n/", "/root/n/a.sh"),
    ]:
        put = mags("cp", str(local), target, answer=vm).seen[-1]
        assert (put.method, put.query, put.body) == ("PUT", {"path": path, "mode": "755"}, b"x")


def test_several_files_go_into_a_directory(mags: Mags, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    outcome = mags("cp", str(tmp_path / "a"), str(tmp_path / "b"), "dev:/srv", answer=vm)
    assert [request.query["path"] for request in outcome.seen if request.method == "PUT"] == ["/srv/a", "/srv/b"]


def test_a_file_comes_out_with_its_mode_and_whole(mags: Mags, tmp_path: Path) -> None:
    def handler(request: SeenRequest) -> Answer:
        return vm(request) if "exec" in request.path else (200, b"content", {"X-Mags-Mode": "750"})

    assert mags("cp", "dev:/srv/f", str(tmp_path / "out"), answer=handler).status == 0
    assert (tmp_path / "out").read_bytes() == b"content" and (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    mags("cp", "dev:/srv/f", str(tmp_path), answer=vm)
    assert (tmp_path / "f").read_bytes() == b"content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "out"]


def test_a_file_goes_to_stdout(mags: Mags) -> None:
    assert mags("cp", "dev:/srv/f", "-", answer=vm).out == "content"


def test_a_file_that_is_not_there_leaves_nothing(mags: Mags, tmp_path: Path) -> None:
    outcome = mags(
        "cp", "dev:/x", str(tmp_path / "o"), answer=lambda seen: {"exit_code": 1} if "exec" in seen.path else NO_FILE
    )
    assert outcome.status == 1 and "no such file" in outcome.err and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("words", [("a", "b"), ("dev:/a", "dev:/b"), ("dev:/a", "here", "dev:/b")])
def test_one_side_is_a_vm(mags: Mags, words: tuple[str, ...]) -> None:
    assert mags("cp", *words).status == 2


class Endless:
    """A process of a hostile VM: much on stderr, then a failure."""

    exit_code: int | None = None

    def __iter__(self) -> Iterator[Chunk]:
        for number in range(1000):
            yield Chunk(2, b"%04d" % number * 1000)
        self.exit_code = 2


def test_the_complaints_of_a_vm_are_kept_in_part() -> None:
    output = copying._Stdout(cast(Process, Endless()))
    assert output.read() == b"" and len(output.complaints) == copying.COMPLAINTS
    with pytest.raises(Refused) as refused:
        copying._finish(cast(Process, Endless()), "dev:/x")
    assert str(refused.value).endswith("0999") and len(str(refused.value)) < 2 * copying.COMPLAINTS


def test_what_is_not_here_is_said_before_anything_is_sent(mags: Mags, tmp_path: Path) -> None:
    outcome = mags("cp", str(tmp_path / "missing"), "dev:")
    assert outcome.status == 1 and not outcome.seen
