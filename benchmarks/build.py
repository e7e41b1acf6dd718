"""What is built before a run: load generator and bare server, with gcc, and the certificate of the TLS scenarios.

Nothing is built again that is newer than its sources.
"""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.candidates import BUILD, CERTIFICATE

HERE = Path(__file__).parent
GENERATOR = BUILD / "loadgen"
BARE = BUILD / "bare"

FLAGS = ("-O3", "-march=native", "-std=gnu11", "-Wall", "-Wextra", "-Wshadow")
WITH_LIBRARIES = ("-DWITH_LIBRARIES", "-lssl", "-lcrypto", "-lz")


class BuildError(Exception):
    """The compiler's words."""


def build() -> bool:
    """Build what is missing or old; whether the load generator speaks TLS, and compresses.

    Raises:
        BuildError: there is no gcc, or it found an error.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    _compile(HERE / "servers" / "bare", BARE)
    without = BUILD / "loadgen-without-libraries"
    try:
        _compile(HERE / "loadgen", GENERATOR, WITH_LIBRARIES)
    except BuildError:
        # OpenSSL's or zlib's headers are missing, or something else is: then this fails, too.
        _compile(HERE / "loadgen", without)
        GENERATOR.unlink(missing_ok=True)
        GENERATOR.symlink_to(without.name)
    return not GENERATOR.is_symlink() and _has_certificate()


def _compile(directory: Path, program: Path, more: Sequence[str] = ()) -> None:
    sources = sorted(directory.glob("*.c"))
    newest = max(path.stat().st_mtime for path in directory.iterdir())
    if program.exists() and not program.is_symlink() and program.stat().st_mtime > newest:
        return
    program.unlink(missing_ok=True)
    try:
        subprocess.run(["gcc", *FLAGS, "-o", program, *sources, *more], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise BuildError("gcc is not installed") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(error.stderr) from None


def _has_certificate() -> bool:
    """Make the certificate if there is none; False if trustme, which makes it, is not installed."""
    if CERTIFICATE.exists():
        return True
    try:
        import trustme
    except ImportError:
        return False
    certificate = trustme.CA().issue_cert("127.0.0.1")
    pem = [certificate.private_key_pem, *certificate.cert_chain_pems]
    CERTIFICATE.write_bytes(b"".join(blob.bytes() for blob in pem))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(CERTIFICATE)
    return True
