"""The few requests to an S3 service that JuiceFS leaves to us: is it there, does it take our key, what does it hold.

Signatures: AWS Signature Version 4 ("Authenticating Requests", Amazon S3 API Reference); path-style addresses.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import httpx

from mags.host.storage.errors import StorageRefused, StorageUnavailable

TIMEOUT = 10.0
ANSWER_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket and the key to it."""

    endpoint: str
    name: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @property
    def url(self) -> str:
        return f"{self.endpoint.rstrip('/')}/{self.name}"


class S3:
    """A client for one bucket. Errors: StorageRefused (4xx) and StorageUnavailable (5xx, no answer)."""

    def __init__(self, bucket: Bucket) -> None:
        if urlsplit(bucket.endpoint).scheme not in ("http", "https"):
            raise StorageRefused(f"The S3 endpoint {bucket.endpoint!r} is not an http or https URL: set it anew.")
        self.bucket = bucket
        self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def put(self, key: str, data: bytes) -> None:
        await self._ask("PUT", key, data)

    async def get(self, key: str) -> bytes:
        return await self._ask("GET", key)

    async def find(self, key: str) -> bytes | None:
        """None if there is no such object, or no bucket."""
        status, body = await self._send("GET", key, b"", {})
        if status == 404:
            return None
        self._check("GET", key, status, body)
        return body

    async def delete(self, key: str) -> None:
        await self._ask("DELETE", key)

    async def exists(self) -> bool:
        """Whether the bucket is there and ours to list."""
        status, body = await self._send("GET", "", b"", {"list-type": "2", "max-keys": "1"})
        if status == 404:
            return False
        self._check("GET", "", status, body)
        return True

    async def create(self) -> None:
        """Make the bucket; one that is there already is fine."""
        status, body = await self._send("PUT", "", b"", {})
        if status != 409:
            self._check("PUT", "", status, body)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """The names of all objects that begin so."""
        async for key, _ in self.objects(prefix):
            yield key

    async def objects(self, prefix: str = "") -> AsyncIterator[tuple[str, int]]:
        """Names and sizes in bytes of all objects that begin so."""
        query = {"list-type": "2", "prefix": prefix}
        while True:
            root = ElementTree.fromstring(await self._ask("GET", "", b"", query))
            space = re.match(r"\{.*\}", root.tag)
            tag = space.group() if space else ""
            for item in root.iter(f"{tag}Contents"):
                yield item.findtext(f"{tag}Key") or "", int(item.findtext(f"{tag}Size") or 0)
            token = root.findtext(f"{tag}NextContinuationToken")
            if not token:
                return
            query = {**query, "continuation-token": token}

    async def _ask(self, method: str, key: str, body: bytes = b"", query: dict[str, str] | None = None) -> bytes:
        status, answer = await self._send(method, key, body, query or {})
        self._check(method, key, status, answer)
        return answer

    async def _send(self, method: str, key: str, body: bytes, query: dict[str, str]) -> tuple[int, bytes]:
        url, headers = sign(self.bucket, method, key, body, query, datetime.now(UTC))
        try:
            async with asyncio.timeout(TIMEOUT * 2):
                answer = await self._client.request(method, url, content=body, headers=headers)
        except (httpx.HTTPError, TimeoutError) as error:
            words = str(error) or type(error).__name__
            raise StorageUnavailable(
                f"The object store at {self.bucket.endpoint} does not answer ({words}): is it running and reachable?"
            ) from error
        return answer.status_code, answer.content[:ANSWER_LIMIT]

    def _check(self, method: str, key: str, status: int, body: bytes) -> None:
        if status < 300:
            return
        found = re.search(rb"<Code>([^<]{1,100})</Code>", body)
        code = found.group(1).decode(errors="replace") if found else "no reason given"
        what = f"The object store at {self.bucket.endpoint} answered {status} ({code}) to {method} {self.bucket.name}"
        if status in (401, 403):
            raise StorageRefused(
                f"{what}: the key {self.bucket.access_key!r} may not do this. "
                "Check MAGS_HOST_STORAGE_ACCESS_KEY, MAGS_HOST_STORAGE_SECRET_KEY and the rights of the key."
            )
        if status >= 500 or status == 429:
            raise StorageUnavailable(f"{what}: it is in trouble; it is tried again.")
        raise StorageRefused(f"{what}/{key}: check MAGS_HOST_STORAGE_ENDPOINT and MAGS_HOST_STORAGE_BUCKET.")


def sign(
    bucket: Bucket, method: str, key: str, body: bytes, query: dict[str, str], moment: datetime
) -> tuple[str, dict[str, str]]:
    """URL and headers of a signed request. `moment` is aware and in UTC."""
    parts = urlsplit(bucket.url)
    path = quote(f"{parts.path}/{key}" if key else parts.path, safe="/-_.~")
    words = "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
    stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    headers = {"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(headers)
    canonical = "\n".join(
        [method, path, words, *(f"{name}:{value}" for name, value in headers.items()), "", names, digest]
    )
    scope = f"{day}/{bucket.region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    secret = f"AWS4{bucket.secret_key}".encode()
    for word in (day, bucket.region, "s3", "aws4_request"):
        secret = hmac.digest(secret, word.encode(), "sha256")
    signature = hmac.new(secret, text.encode(), "sha256").hexdigest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={bucket.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    url = f"{parts.scheme}://{parts.netloc}{path}" + (f"?{words}" if words else "")
    return url, headers
