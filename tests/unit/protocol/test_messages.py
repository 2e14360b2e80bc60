from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mags.protocol import messages as m
from mags.protocol.errors import STATUS, Problem


def test_a_request_comes_back_as_it_was_sent() -> None:
    start = m.Start(
        vm_id="v",
        spec=m.VmSpec(image="debian", vcpus=2),
        owner="o",
        script=m.Script(
            job_id="j", script="echo", environment={"A": "b"}, files=[m.FileReference(file_id="f", name="n", size=1)]
        ),
        keep="stay",
        attachment=m.Attachment(workspace_id="w", epoch=3),
    )
    assert m.decode(m.encode(start), m.Start) == start


def test_unknown_fields_are_ignored_so_that_versions_may_differ() -> None:
    import msgspec

    data = msgspec.msgpack.encode({"vm_id": "v", "of_tomorrow": 1})
    assert m.decode(data, m.VmRequest) == m.VmRequest(vm_id="v")


def test_an_answer_carries_a_result_or_a_problem() -> None:
    assert m.open_answer(m.answer(m.ExecResult(exit_code=3, stdout=b"\xff")), m.ExecResult).stdout == b"\xff"
    with pytest.raises(Problem) as caught:
        m.open_answer(m.refusal(Problem("no_capacity", "Full.", retry_after=2)), m.Done)
    assert (caught.value.code, caught.value.message, caught.value.details) == (
        "no_capacity",
        "Full.",
        {"retry_after": 2},
    )
    with pytest.raises(Problem) as caught:
        m.open_answer(m.encode(m.Answer()), m.Done)
    assert caught.value.code == "internal"


def test_a_code_of_a_newer_host_is_an_internal_problem() -> None:
    with pytest.raises(Problem) as caught:
        m.open_answer(m.encode(m.Answer(code="of_tomorrow", message="Hm.")), m.Done)
    assert (caught.value.code, caught.value.message) == ("internal", "Hm.")


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_request_and_nothing_worse(data: bytes) -> None:
    for kind in (m.Start, m.Exec, m.Open, m.Presence):
        try:
            m.decode(data, kind)
        except Problem as problem:
            assert problem.code == "bad_request"


def test_tagged_unions_come_back_as_what_they_were() -> None:
    for event in (m.JobEnded(vm_id="v", job_id="j", exit_code=0), m.VmChanged(vm_id="v", state="gone")):
        assert m.decode_event(m.encode(event)) == event
    for frame in (m.Data(stream=1, data=b"x"), m.Credit(amount=5), m.Eof(), m.SessionEnd(exit_code=1)):
        assert m.decode_frame(m.encode(frame)) == frame
    for output in (m.Output(stream=1, offset=7, data=b"x", at_ms=1), m.OutputEnd(exit_code=2)):
        assert m.decode_output(m.encode(output)) == output


def test_every_problem_has_a_status_and_an_unknown_code_is_a_defect() -> None:
    for code, status in STATUS.items():
        problem = Problem(code, "Words.", a=1)
        assert problem.status == status
        assert problem.body() == {"error": "Words.", "code": code, "details": {"a": 1}}
    with pytest.raises(ValueError):
        Problem("nonsense", "x")


def test_every_message_is_offered_by_the_package() -> None:
    def below(kind: type[m.Value]) -> set[str]:
        found = {kind.__name__} if kind.__module__.startswith("mags.protocol.messages.") else set()
        return found.union(*(below(one) for one in kind.__subclasses__()))

    assert below(m.Value) <= set(m.__all__)
