"""TLS on both sides: whom a client believes, what a server shows, and why a connection was refused.

Nothing here turns verification off: who cannot be verified is not spoken to.
"""

import ssl
from pathlib import Path

import httpx

from itemforge.errors import ConfigurationError

_END = "-----END CERTIFICATE-----"


def client_context(ca_file: Path | None) -> ssl.SSLContext:
    """Trust the system's certificates, and those of `ITEMFORGE_CA_FILE` besides.

    Raises:
        ConfigurationError: the file cannot be read or holds no certificate.
    """
    context = httpx.create_ssl_context()  # the trust that httpx ships with, for images that have no other
    context.load_default_certs()
    if ca_file is not None:
        _read(ca_file, "ITEMFORGE_CA_FILE")
        try:
            context.load_verify_locations(ca_file)
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"ITEMFORGE_CA_FILE: {ca_file} holds no certificate that can be read ({error.reason}); "
                "it must be PEM text, as the CA gave it out"
            ) from None
    return context


def own_certificate_only(certificate: Path) -> ssl.SSLContext:
    """Believe one certificate, under whatever name: for the gateway that runs in this very process."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    first = certificate.read_text().partition(_END)
    context.load_verify_locations(cadata=first[0] + _END)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    return context


def check_server_files(certificate: Path | None, key: Path | None) -> bool:
    """Whether a server with these files speaks TLS; to be asked before anything starts.

    Raises:
        ConfigurationError: one is missing, unreadable, or they do not belong together.
    """
    if certificate is None and key is None:
        return False
    if certificate is None or key is None:
        raise ConfigurationError("set both ITEMFORGE_TLS_CERT_FILE and ITEMFORGE_TLS_KEY_FILE, or neither")
    _read(certificate, "ITEMFORGE_TLS_CERT_FILE")
    _read(key, "ITEMFORGE_TLS_KEY_FILE")

    def encrypted() -> str:
        raise ConfigurationError(
            f"ITEMFORGE_TLS_KEY_FILE: the key in {key} is encrypted; write it without a passphrase, "
            "readable for this user alone"
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, encrypted)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"{certificate} (ITEMFORGE_TLS_CERT_FILE) and {key} (ITEMFORGE_TLS_KEY_FILE) are not a PEM "
            f"certificate and its private key ({error.reason or 'unreadable'})"
        ) from None
    return True


def _read(path: Path, setting: str) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path} cannot be read ({error.strerror})") from None


def refusal(error: BaseException) -> str | None:
    """What TLS has to do with a failed connection, in words that say what to do; None: nothing."""
    for seen in _causes(error):
        if isinstance(seen, ssl.SSLCertVerificationError):
            if "mismatch" in seen.verify_message.lower():
                return f"{seen.verify_message} Use an address that the server's certificate names"
            if "expired" in seen.verify_message.lower():
                return "the server's certificate has expired; its operator must renew it"
            return (
                f"the server's certificate is not trusted ({seen.verify_message}); "
                "set ITEMFORGE_CA_FILE to the certificate of the CA that signed it"
            )
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed ({seen.reason or seen}); does the server speak TLS at this port?"
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what led to it. Errors that libraries raise again may be their own cause, in a circle."""
    found: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and not any(seen is known for known in found):
        found.append(seen)
        seen = seen.__cause__ or seen.__context__
    return found
