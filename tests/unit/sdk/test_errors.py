from __future__ import annotations

import pytest

from mags.sdk import errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.NotAuthorized),
        (403, errors.NotAuthorized),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (410, errors.NotFound),
        (413, errors.InvalidRequest),
        (422, errors.InvalidRequest),
        (429, errors.Busy),
        (500, errors.ServerFailed),
        (502, errors.ServerFailed),
        (503, errors.Busy),
        (504, errors.ServerFailed),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[errors.MagsError]) -> None:
    error = errors.from_answer(status, {"error": "No.", "code": "word", "details": {"a": 1}})
    assert type(error) is kind
    assert (str(error), error.status_code, error.code, error.details) == ("No.", status, "word", {"a": 1})


@pytest.mark.parametrize("body", [None, [], "", {"error": None}, {"details": "x", "code": 5}])
def test_an_answer_without_a_reason_still_makes_a_sentence(body: object) -> None:
    error = errors.from_answer(500, body)
    assert "500" in str(error) and error.code is None and error.details == {}


def test_a_page_of_a_proxy_is_shown_in_part() -> None:
    assert str(errors.from_answer(502, "<h1>Bad gateway</h1>" + "x" * 9999)).startswith("<h1>Bad gateway</h1>")
    assert len(str(errors.from_answer(502, "x" * 9999))) == 500


def test_busy_knows_when_to_try_again() -> None:
    busy = errors.from_answer(503, {"error": "Full.", "details": {"retry_after": 2.5}}, "7")
    assert isinstance(busy, errors.Busy) and busy.retry_after == 2.5
    told = errors.from_answer(429, {"error": "Slow."}, "7")
    assert isinstance(told, errors.Busy) and told.retry_after == 7
    silent = errors.from_answer(429, {"error": "Slow."}, "soon")
    assert isinstance(silent, errors.Busy) and silent.retry_after is None


def test_a_wait_that_was_too_long_is_a_timeout_error_too() -> None:
    assert issubclass(errors.WaitTimeout, TimeoutError)


def test_the_published_clients_way_to_make_one_works() -> None:
    assert errors.MagsError("message", status_code=404).status_code == 404
    assert errors.MagsError("message").status_code is None


def test_the_tree_in_the_documentation_is_the_tree() -> None:
    names = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert errors.__doc__ is not None
    assert names == {word for word in errors.__doc__.replace("─", " ").split() if word in names}
