"""Edges that are asked to let go of a VM."""

from __future__ import annotations

from typing import cast

from mags.host.machines.callers import MOST, Callers
from mags.hostclient import HostClient
from mags.protocol import edge
from mags.protocol.errors import Problem
from mags.protocol.ids import new_id


class Edges:
    """Answers as they are told: how many connections are busy, or why there is no answer."""

    def __init__(self) -> None:
        self.connection = self
        self.is_connected = True
        self.answers: dict[str, int | Problem] = {}
        self.asked: list[str] = []

    async def ask(self, subject: str, value: edge.Release, kind: object, *, timeout: float, who: str) -> edge.Released:
        edge_id = subject.rpartition(".")[2]
        self.asked.append(edge_id)
        answer = self.answers[edge_id]
        if isinstance(answer, Problem):
            raise answer
        return edge.Released(busy=answer)


def callers(edges: Edges, **answers: int | Problem) -> Callers:
    made = Callers(cast(HostClient, edges), "v1")
    for answer in answers.values():
        edge_id = new_id()
        edges.answers[edge_id] = answer
        made.note(edge_id)
    return made


async def test_all_are_asked_and_those_that_have_let_go_only_once() -> None:
    edges = Edges()
    made = callers(edges, first=2, second=0, third=1)
    assert await made.release() == 3
    assert len(edges.asked) == 3
    busy = [edge_id for edge_id, answer in edges.answers.items() if answer]
    edges.answers = dict.fromkeys(edges.answers, 0)
    assert await made.release() == 0
    assert edges.asked[3:] == busy


async def test_an_edge_that_is_gone_keeps_no_vm_awake() -> None:
    edges = Edges()
    made = callers(edges, gone=Problem("unavailable", "Gone."), silent=Problem("outcome_unknown", "Silent."))
    assert await made.release() == 0
    assert await made.release() == 0 and len(edges.asked) == 2


async def test_while_nobody_can_be_asked_each_counts() -> None:
    edges = Edges()
    made = callers(edges, first=0, second=0)
    edges.is_connected = False
    assert await made.release() == 2
    edges.is_connected = True
    assert await made.release() == 0


async def test_names_that_are_no_ids_are_not_asked_and_the_earliest_of_very_many_neither() -> None:
    edges = Edges()
    made = callers(edges)
    for name in ("", "*", "a.b", ">"):
        made.note(name)
    assert await made.release() == 0 and not edges.asked
    names = [new_id() for _ in range(MOST + 1)]
    edges.answers = dict.fromkeys(names, 0)
    for name in names:
        made.note(name)
    await made.release()
    assert edges.asked == names[1:]
