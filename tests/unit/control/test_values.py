"""Small pure parts: names, modes, keys, links, paths, refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mags.control.config import Settings
from mags.control.http.refusals import from_validation
from mags.control.jobs.schemas import JobRequest
from mags.control.jobs.vm_files import absolute, parse_mode
from mags.control.lifecycles.addresses import public_url
from mags.control.records import public_keys
from mags.control.records.idempotency import once
from mags.control.urls.names import split_name
from mags.hostclient.presence import HostState, state_at
from mags.protocol import edge
from mags.protocol.errors import Problem


@pytest.mark.parametrize(
    ("name", "expected"),
    [("app", (None, "app")), ("8080-app", (8080, "app")), ("0-app", (None, "0-app")), ("70000-a", (None, "70000-a")),
     ("8080-", (None, "8080-")), ("80-443-a", (80, "443-a"))],
)  # fmt: skip
def test_a_name_is_a_port_and_a_subdomain(name: str, expected: tuple[int | None, str]) -> None:
    assert split_name(name) == expected


def test_public_urls() -> None:
    local = Settings(apps_domain="apps.localhost", apps_scheme="http", apps_port=4281)
    world = Settings(apps_domain="apps.example.com", apps_scheme="https", apps_port=443)
    assert public_url(local, "x") == "http://x.apps.localhost:4281"
    assert public_url(world, "x", port=9000) == "https://9000-x.apps.example.com"


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description and field.description.endswith("."), name


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/etc/x", "/etc/x"), ("x", "/root/x"), ("~/x", "/root/x"), ("~", "/root"), ("a/../b", "/root/a/../b")],
)
def test_paths_in_a_vm_begin_at_home(path: str, expected: str) -> None:
    assert absolute(path) == expected


def test_modes_are_octal() -> None:
    assert (parse_mode("755"), parse_mode("0644"), parse_mode(None)) == (0o755, 0o644, None)
    for wrong in ("", "9", "rwx", "-1", "777777", "٧"):
        with pytest.raises(Problem):
            parse_mode(wrong)


def test_key_pairs_are_what_openssh_reads() -> None:
    private, public = public_keys.new_pair()
    assert private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert public_keys.parse(f"{public.line} a comment").comment == "a comment"
    assert public.fingerprint.startswith("SHA256:") and len(public.fingerprint) == 50


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_a_problem(text: str) -> None:
    try:
        public_keys.parse(text)
    except Problem as problem:
        assert problem.code == "invalid"


def test_links_open_until_they_run_out_and_only_what_has_their_secret() -> None:
    value = edge.sign_link("secret", lifetime_s=60, now=1000)
    assert edge.check_link("secret", value, now=1059)
    assert not edge.check_link("secret", value, now=1061)
    assert not edge.check_link("other", value, now=1000)
    assert not edge.check_link("", value, now=1000)


@given(st.text(max_size=60))
def test_no_other_text_opens_a_link(value: str) -> None:
    assert not edge.check_link("secret", value, now=0)


def test_an_idempotency_key_is_bound_to_what_was_asked() -> None:
    assert once(None, "x") is None
    first, second = once("k", "POST", "/a", b"body"), once("k", "POST", "/ab", b"ody")
    assert first is not None and second is not None and first.fingerprint != second.fingerprint
    for key in ("", "x" * 256):
        with pytest.raises(Problem):
            once(key, "x")


def test_silence_makes_a_host_suspect_and_lost() -> None:
    assert [state_at(seconds) for seconds in (0, 14.9, 15, 29.9, 30)] == [
        HostState.LIVE, HostState.LIVE, HostState.SUSPECT, HostState.SUSPECT, HostState.LOST,
    ]  # fmt: skip


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(ValidationError) as refused:
        JobRequest.model_validate({"script": "true", "no_sleep": True})
    problem = from_validation(refused.value.errors(include_url=False))
    assert (problem.code, problem.message) == ("invalid", "no_sleep: It requires persistent.")
    assert problem.details == {"fields": {"no_sleep": "It requires persistent."}}


def test_a_sandbox_without_work_has_no_script() -> None:
    assert JobRequest.model_validate({"script": "sleep infinity", "persistent": True}).wish().script is None
    assert JobRequest.model_validate({"script": "sleep infinity"}).wish().script == "sleep infinity"
    assert JobRequest.model_validate({"script": "x", "rootfs_type": "standard"}).wish().image is None
    assert JobRequest.model_validate({"script": "x", "rootfs_type": "debian"}).wish().image == "debian"
