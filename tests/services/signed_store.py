"""An object store that takes signed uploads as Google Cloud Storage does, and verifies every part of them.

The checks follow Google's description of V4 signing ("V4 signing process with your own program"): the
canonical request is method, path, canonical query, canonical headers, signed headers and UNSIGNED-PAYLOAD;
its SHA-256 stands in the string to sign, whose RSA-SHA256 signature is the last query parameter. Answers:
403 SignatureDoesNotMatch, 400 MalformedSecurityHeader, 400 ExpiredToken, 412 PreconditionFailed, 400 EntityTooLarge, 200 when created.
It also answers the few calls of the JSON API by which our gateway reads, so a whole system can run on it.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

EMAIL = "gateway@project.iam.gserviceaccount.com"
Answer = tuple[int, str]


class Account:
    """A service account with a private key made here."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.public_key = self._key.public_key()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def key_file(self, path: Path) -> Path:
        private = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        fields = {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": private.decode(),
            "client_email": EMAIL,
            "token_uri": "https://oauth2.googleapis.com/token",
        }
        path.write_text(json.dumps(fields))
        return path


class SignedStore:
    """`url` is the endpoint; `objects` maps `bucket/key` to (bytes, content type). `faults` are answered first."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.faults: list[int] = []
        self.puts: list[tuple[str, dict[str, str]]] = []
        self.refusals: list[str] = []
        #: So many answers are lost on their way: what was asked for has been done.
        self.lost_answers = 0
        #: Moves the store's clock, to have signatures expire.
        self.later = timedelta()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with store._lock:
                    status, content, kind = store._answer(self.command, self.path, headers, body)
                    lost = store.lost_answers > 0
                    store.lost_answers -= lost
                if lost:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = _serve

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler

    def _answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes, str]:
        path, query = urlsplit(target).path, urlsplit(target).query
        if path.startswith("/storage/v1/b/"):
            return self._read(method, path)
        self.puts.append((target, dict(headers)))
        status, code = self._put(method, path, query, headers, body)
        if status >= 400:
            self.refusals.append(code)
        xml = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>" if code else ""
        return status, xml.encode(), "application/xml; charset=UTF-8"

    def _read(self, method: str, path: str) -> tuple[int, bytes, str]:
        bucket, _, name = path.removeprefix("/storage/v1/b/").removeprefix("download/").partition("/o/")
        found = self.objects.get(f"{bucket}/{unquote(name)}")
        if method != "GET" or found is None:
            return 404, b'{"error": {"code": 404, "message": "No such object"}}', "application/json"
        return (
            200,
            json.dumps({"name": unquote(name), "size": str(len(found[0]))}).encode(),
            "application/json",
        )

    def _put(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self.faults:
            return self.faults.pop(0), "ServiceUnavailable"
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))
        refused = self._signature_refused(method, path, given, headers) or self._expired(given)
        if refused:
            return refused
        if method != "PUT":
            return 405, "MethodNotAllowed"
        least, _, most = headers.get("x-goog-content-length-range", "0,").partition(",")
        if not int(least) <= len(body) <= int(most or len(body)):
            return 400, "EntityTooLarge"
        name = unquote(path).removeprefix("/")
        if headers.get("x-goog-if-generation-match") == "0" and name in self.objects:
            return 412, "PreconditionFailed"
        self.objects[name] = body, headers.get("content-type", "")
        return 200, ""

    def _signature_refused(
        self, method: str, path: str, given: dict[str, str], headers: Mapping[str, str]
    ) -> Answer | None:
        signature = given.pop("X-Goog-Signature", "")
        if given.get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256" or not signature:
            return 403, "AccessDenied"
        scope = f"{given['X-Goog-Date'][:8]}/auto/storage/goog4_request"
        if given["X-Goog-Credential"] != f"{EMAIL}/{scope}":
            return 403, "AccessDenied"
        names = given["X-Goog-SignedHeaders"].split(";")
        # Google wants the host signed, every x-goog header signed, and every signed header sent.
        unsigned = [name for name in headers if name.startswith("x-goog-") and name not in names]
        if "host" not in names or unsigned or any(name not in headers for name in names):
            return 400, "MalformedSecurityHeader"
        query = "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in sorted(given.items()))
        lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
        request = "\n".join((method, path, query, lines, ";".join(names), "UNSIGNED-PAYLOAD"))
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = "\n".join(("GOOG4-RSA-SHA256", given["X-Goog-Date"], scope, digest))
        try:
            self.account.public_key.verify(
                bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (InvalidSignature, ValueError):
            return 403, "SignatureDoesNotMatch"
        return None

    def _expired(self, given: dict[str, str]) -> Answer | None:
        signed_at = datetime.strptime(given["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        lasts = int(given["X-Goog-Expires"])
        if lasts > 7 * 24 * 3600:
            return 400, "AuthorizationQueryParametersError"
        over = datetime.now(UTC) + self.later > signed_at + timedelta(seconds=lasts)
        return (400, "ExpiredToken") if over else None
