"""A certificate authority of the test's own, and certificates by it."""

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Files:
    """PEM files of a server: certificate with its chain, and private key."""

    certificate: Path
    key: Path


class Authority:
    """`ca_file` is what a client must trust to believe the certificates of `issue`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self._issued = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, *names: str) -> Files:
        """A server's certificate for these host names and addresses."""
        issued = self._ca.issue_cert(*names)
        self._issued += 1  # one more for a name must not take the place of the first
        stem = f"{names[0]}-{self._issued}"
        files = Files(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        files.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(files.key)
        return files
