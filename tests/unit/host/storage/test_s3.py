from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mags.host.storage.errors import StorageRefused
from mags.host.storage.s3 import S3, Bucket, sign

BUCKET = Bucket(
    "https://s3.amazonaws.com", "examplebucket", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)
MOMENT = datetime(2013, 5, 24, tzinfo=UTC)


def test_signature_is_stable_and_bound_to_every_part() -> None:
    """The algorithm itself is proven by a real service in the integration tests."""
    url, headers = sign(BUCKET, "GET", "a b/ü", b"", {"prefix": "x/y", "list-type": "2"}, MOMENT)
    assert url == "https://s3.amazonaws.com/examplebucket/a%20b/%C3%BC?list-type=2&prefix=x%2Fy"
    assert headers["authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature="
    )
    others = [
        sign(BUCKET, "PUT", "a b/ü", b"", {"prefix": "x/y", "list-type": "2"}, MOMENT),
        sign(BUCKET, "GET", "a b", b"", {"prefix": "x/y", "list-type": "2"}, MOMENT),
        sign(BUCKET, "GET", "a b/ü", b"1", {"prefix": "x/y", "list-type": "2"}, MOMENT),
        sign(BUCKET, "GET", "a b/ü", b"", {"prefix": "x"}, MOMENT),
    ]
    signatures = {one[1]["authorization"] for one in others} | {headers["authorization"]}
    assert len(signatures) == 5


def test_endpoint_must_be_a_url() -> None:
    with pytest.raises(StorageRefused, match="not an http"):
        S3(Bucket("127.0.0.1:9000", "b", "a", "s"))
