"""Says by its exit code whether a process of ItemForge on this machine is ready: `ready.py PORT [tls]`.

The images have no curl. Only loopback is asked, and past any proxy; the certificate is then nobody's name.
"""

import http.client
import ssl
import sys

SECONDS = 4


def ready(port: int, tls: bool) -> bool:
    """Whether `/readyz` answers 200 within four seconds."""
    if tls:
        context = ssl._create_unverified_context()  # noqa: S323  # loopback, and nothing secret is sent
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if ready(int(sys.argv[1]), "tls" in sys.argv[2:]) else 1)
