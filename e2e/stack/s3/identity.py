#!/usr/bin/env python3
"""An identity provider for the server of tests: one key, one token, no service.

Usage: identity.py make DIR ISSUER       make DIR/key.pem and DIR/jwks.json (the public key), unless they are there, and DIR/token
       identity.py publish DIR URL       put DIR/jwks.json to URL, where the server looks for it; exits 1 if that fails

The token says of its bearer what a cluster says of a service account. It is signed by RS256 and valid for ten years, as the certificates beside it. Standard
library and the openssl command only.
"""

import base64
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

VALID_SECONDS = 10 * 365 * 24 * 3600
# Above what a loaded machine needs; the caller asks again until its own deadline.
REQUEST_TIMEOUT_SECONDS = 10


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*arguments, **options):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, **options).stdout


def make(folder, issuer):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "key.pem"
    if not key.exists():
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key)
    modulus = openssl("rsa", "-in", key, "-noout", "-modulus").decode().strip().partition("=")[2]
    # The public exponent that openssl uses unless told.
    public = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "tests", "n": encoded(bytes.fromhex(modulus)), "e": "AQAB"}
    (folder / "jwks.json").write_text(json.dumps({"keys": [public]}))
    now = int(time.time())
    claims = {"iss": issuer, "aud": "forebay", "sub": "system:serviceaccount:default:flights", "iat": now, "exp": now + VALID_SECONDS}
    parts = [{"alg": "RS256", "typ": "JWT", "kid": "tests"}, claims]
    signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    signature = openssl("dgst", "-sha256", "-sign", key, input=signed.encode())
    (folder / "token").write_text(f"{signed}.{encoded(signature)}")


def publish(folder, url):
    body = (pathlib.Path(folder) / "jwks.json").read_bytes()
    request = urllib.request.Request(url, data=body, method="PUT", headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS):
        pass


if __name__ == "__main__":
    commands = {"make": make, "publish": publish}
    if len(sys.argv) != 4 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    try:
        commands[sys.argv[1]](*sys.argv[2:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"identity {sys.argv[1]}: {error}: {error.stderr.decode()}")
    except OSError as error:
        sys.exit(f"identity {sys.argv[1]} {sys.argv[3]}: {error}")
