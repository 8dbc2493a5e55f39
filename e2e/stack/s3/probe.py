#!/usr/bin/env python3
"""Asks an S3 server whether it is ready for tests: exits 0 if it is, 1 with the first thing that failed if not.

Usage: probe.py URL ACCESS_KEY SECRET_KEY

An open port proves nothing: the gateway answers before the volumes behind it take writes, and after a restart reads of
older objects fail for seconds. So this does what the worker will do, signed: make a bucket, read back the object that an
earlier probe left there, put and get a new one, and see a create-only put of an existing key refused. It keeps that one
object in the bucket `forebay-stack-probe` and changes nothing else. Standard library only, so that any Python 3 runs it.
"""

import datetime
import hashlib
import hmac
import http.client
import sys
import urllib.parse

BUCKET = "/forebay-stack-probe"
KEPT = f"{BUCKET}/kept"
REGION = "us-east-1"
# Above what a loaded machine needs for one small request; the caller asks again until its own deadline.
REQUEST_TIMEOUT_SECONDS = 10


class S3:
    """One server and one pair of keys; `request` returns status and body of a signed path-style request."""

    def __init__(self, url, access_key, secret_key):
        self.host = urllib.parse.urlsplit(url).netloc
        self.access_key = access_key
        self.secret_key = secret_key

    def request(self, method, path, body=b"", headers=None):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        signed = {
            **(headers or {}),
            "host": self.host,
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
            "x-amz-date": now,
        }
        signed["authorization"] = self._authorization(method, path, signed, now)
        connection = http.client.HTTPConnection(self.host, timeout=REQUEST_TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body=body, headers=signed)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _authorization(self, method, path, headers, now):
        """AWS Signature Version 4; only paths that need no escaping and no query are ever signed here."""
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        request = f"{method}\n{path}\n\n{lines}\n{names}\n{headers['x-amz-content-sha256']}"
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        return f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"


def expect(s3, method, path, accepted, body=b"", headers=None):
    status, answer = s3.request(method, path, body, headers)
    if status not in accepted:
        raise RuntimeError(f"{method} {path}: HTTP {status}, expected one of {accepted}: {answer[:200]!r}")
    return status, answer


def probe(s3):
    """Raises unless the server takes writes, gives reads, and honours `If-None-Match: *`."""
    expect(s3, "PUT", BUCKET, [200, 409])
    expect(s3, "GET", KEPT, [200, 404])
    body = datetime.datetime.now().isoformat().encode()
    expect(s3, "PUT", KEPT, [200], body)
    _, read = expect(s3, "GET", KEPT, [200])
    if read != body:
        raise RuntimeError(f"GET {KEPT}: read {read!r} after {body!r} was put")
    expect(s3, "PUT", KEPT, [412], body, {"if-none-match": "*"})


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        probe(S3(*sys.argv[1:]))
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        sys.exit(f"s3 probe of {sys.argv[1]}: {error}")
