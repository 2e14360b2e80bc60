"""Requests to the URL of a sandbox that is put to sleep at any moment: through Caddy, edge and host to a real VM."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import httpx
import pytest

from tests.kit.installation import Installation

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

SERVER = r"""
cat > /root/serve <<'X'
#!/bin/sh
end=$(printf '\r')
while read -r method target _; do
  size=0
  while read -r line && line=${line%"$end"} && [ -n "$line" ]; do
    case $line in [Cc]ontent-[Ll]ength:*) size=${line#*: } ;; esac
  done
  body=$(head -c "$size")
  echo "$method $target" >> /root/seen
  case $target in /slow*) sleep 3 ;; esac
  printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s' $((${#target} + ${#body})) "$target" "$body"
done
X
chmod +x /root/serve
exec nc -lk -p 8080 -e /root/serve
"""


class Site:
    """The sandbox "night": its URL, and its sleep by the API."""

    def __init__(self, mags: Installation) -> None:
        mags.cli("run", "-p", "-d", "-n", "night", "--url", SERVER)
        mags.cli("exec", "night", "until nc -z 127.0.0.1 8080; do sleep 0.1; done")
        self.mags, self.id = mags, mags.json("status", "night")["request_id"]
        self.host = mags.out("url", "night", "8080").split()[-1].split("/")[2]

    def requests(self) -> httpx.AsyncClient:
        """A client of the URL."""
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=50)
        return httpx.AsyncClient(
            base_url=f"http://{self.mags.apps}",
            headers={"Host": self.host},
            timeout=120,
            trust_env=False,
            limits=limits,
        )

    def api(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.mags.token}"}
        return httpx.AsyncClient(
            base_url=f"{self.mags.url}/api/v1/mags-jobs/{self.id}", headers=headers, timeout=120, trust_env=False
        )

    async def seen(self) -> list[str]:
        """The requests that its program has had, in order."""
        text = await asyncio.to_thread(self.mags.out, "exec", "night", "cat /root/seen 2>/dev/null; true")
        return text.splitlines()


@pytest.fixture(scope="module")
def site(mags: Installation) -> Iterator[Site]:
    yield Site(mags)
    mags.cli("stop", "night", check=False)


async def hammer(site: Site, tries: int, seed: int = 11) -> None:
    """Each request is answered, and those that must not be repeated reach the program once."""
    random, slept = Random(seed), 0
    await asyncio.to_thread(site.mags.cli, "exec", "night", "rm -f /root/seen")
    async with site.requests() as client, site.api() as api:

        async def ask(number: int, index: int, method: str) -> None:
            await asyncio.sleep(random.uniform(0, 0.4))
            body = "" if method == "GET" else "x" * random.choice((1, 3000))
            answer = await client.request(method, f"/{number}/{index}", content=body.encode())
            assert (answer.status_code, answer.text) == (200, f"/{number}/{index}{body}"), (method, answer.text)

        for number in range(tries):
            async with asyncio.TaskGroup() as tasks:
                # Two at once: nc has room for no more in its queue of connections, and resets a third.
                tasks.create_task(ask(number, 0, "GET"))
                tasks.create_task(ask(number, 1, "POST"))
                await asyncio.sleep(random.uniform(0, 0.4))
                answer = await api.post("/sleep")
                assert answer.status_code in (200, 409), answer.text
                slept += answer.status_code == 200
    print(f"slept {slept} times of {tries}")
    assert slept > tries / 4
    sent = [line for line in await site.seen() if not line.startswith("GET ") and line.count("/") == 2]
    assert sorted(sent) == sorted(f"POST /{number}/1" for number in range(tries))


async def test_a_request_under_way_is_waited_for_and_said_to_keep_it_awake(site: Site) -> None:
    async with site.requests() as client, site.api() as api:
        asking = asyncio.create_task(client.post("/slow", content=b"body"))
        while "POST /slow" not in await site.seen():
            await asyncio.sleep(0.05)
        refused = await api.post("/sleep")
        assert refused.status_code == 409 and "1 request to its URL" in refused.json()["error"], refused.text
        assert (await asking).text == "/slowbody"
        assert (await api.post("/sleep")).status_code == 200


async def test_no_request_is_lost_while_it_falls_asleep(site: Site) -> None:
    await hammer(site, 25)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tenth", range(10))
async def test_no_request_is_lost_in_a_thousand_nights(site: Site, tenth: int) -> None:
    await hammer(site, 100, tenth)
