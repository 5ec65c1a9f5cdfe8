"""A certification authority for tests, made anew for each run, and what it issues."""

from __future__ import annotations

import datetime
import functools
import ssl
import subprocess
from pathlib import Path

import attrs
import trustme


@attrs.frozen
class Files:
    """A certificate with its key, as PEM files."""

    cert: Path
    key: Path

    def server(self, *, clients: Path | None = None) -> ssl.SSLContext:
        """What a server needs; ``clients``: the CA of the clients it insists on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(clients)
        return context


class Authority:
    """A CA and its certificates in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.file = directory / "ca.pem"
        """The CA's own certificate."""
        self._authority.cert_pem.write_to_path(self.file)

    def issue(
        self,
        *names: str,
        expires: datetime.datetime | None = None,
        begins: datetime.datetime | None = None,
    ) -> Files:
        """A certificate for names or addresses."""
        issued = self._authority.issue_cert(*names, not_after=expires, not_before=begins)
        stem = f"{len(list(self._directory.iterdir()))}-{names[0].replace(':', '_')}"
        files = Files(self._directory / f"{stem}.pem", self._directory / f"{stem}.key")
        for number, part in enumerate(issued.cert_chain_pems):
            part.write_to_path(files.cert, append=number > 0)
        issued.private_key_pem.write_to_path(files.key)
        files.key.chmod(0o600)
        return files

    @functools.cached_property
    def localhost(self) -> Files:
        """Good for ``localhost``, ``www.example.net`` and the loopback addresses."""
        return self.issue("localhost", "www.example.net", "127.0.0.1", "::1")

    @functools.cached_property
    def expired(self) -> Files:
        """As :attr:`localhost`, but its time is over."""
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return self.issue("localhost", "127.0.0.1", begins=now - 3 * day, expires=now - day)

    @functools.cached_property
    def premature(self) -> Files:
        """As :attr:`localhost`, but its time has not come."""
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return self.issue("localhost", "127.0.0.1", begins=now + day, expires=now + 3 * day)

    @functools.cached_property
    def client(self) -> Files:
        """What a client shows."""
        return self.issue("checker@example.net")


def issued_by(issuer: Files, directory: Path) -> Files:
    """A certificate for 127.0.0.1 that the owner of another one, who is no CA, has issued."""
    files = Files(directory / "cert.pem", directory / "cert.key")
    (directory / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout cert.key "
        "-subj /CN=x -out cert.csr",
        f"x509 -req -in cert.csr -CA {issuer.cert} -CAkey {issuer.key} -set_serial 5 -days 1 "
        "-extfile extensions -out cert.pem",
    ):
        argv = ["openssl", *command.split()]
        subprocess.run(argv, cwd=directory, check=True, capture_output=True)
    files.cert.write_bytes(files.cert.read_bytes() + issuer.cert.read_bytes())
    return files
