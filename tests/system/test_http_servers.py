"""The HTTP and HTTPS checkers against nginx."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import attrs
import pytest

from checks.attempts import PASSED, attempt, real_sockets
from checks.certificates import Authority, Files
from system.lab import wait_until
from vrrpkit.checks.http import URL, HTTPChecker, HTTPSChecker
from vrrpkit.checks.target import Target

pytestmark = pytest.mark.system

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
GENHASH = shutil.which("genhash", path="/usr/bin:/usr/sbin:/usr/local/bin")
BODY = b"It works!\n"
BIG = bytes(range(256)) * 4096 * 5
PORTS = ("plain", "tls", "expired", "stranger", "clients")

CONFIG = """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log info;
events {{ }}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    gzip on;
    gzip_min_length 1;
    gzip_types text/plain;
    root files;
    server {{
        listen 127.0.0.1:{plain};
        listen [::1]:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {good.cert};
        ssl_certificate_key {good.key};
        location / {{ }}
        location /empty {{ return 204; }}
        location /moved {{ return 302 /ok; }}
        location /protocol {{ return 200 $server_protocol; }}
        location /method {{ return 200 $request_method; }}
        location /probe {{ return 200 "$http_x_probe $http_user_agent"; }}
        location /host {{ return 200 $http_host; }}
        location /sni {{ return 200 "sni=$ssl_server_name"; }}
        location /included {{ ssi on; ssi_types text/plain; }}
        location /busy {{ return 503; }}
    }}
    server {{
        listen 127.0.0.1:{plain};
        server_name www.example.net;
        return 200 "virtual host";
    }}
    server {{
        listen 127.0.0.1:{expired} ssl;
        ssl_certificate {expired_files.cert};
        ssl_certificate_key {expired_files.key};
    }}
    server {{
        listen 127.0.0.1:{stranger} ssl;
        ssl_certificate {stranger_files.cert};
        ssl_certificate_key {stranger_files.key};
    }}
    server {{
        listen 127.0.0.1:{clients} ssl;
        ssl_certificate {good.cert};
        ssl_certificate_key {good.key};
        ssl_client_certificate {ca};
        ssl_verify_client on;
    }}
}}
"""


@attrs.frozen
class Web:
    """A running nginx."""

    ports: dict[str, int]
    authority: Authority
    process: subprocess.Popen[bytes]

    def target(self, name: str = "plain", address: str = "127.0.0.1") -> Target:
        """One of its servers."""
        return Target(ip_address(address), self.ports[name])

    @property
    def client(self) -> Files:
        """A certificate that it accepts from clients."""
        return self.authority.client


def free_ports() -> dict[str, int]:
    """Ports that are free in both families."""
    sockets = [socket.create_server(("::1", 0), family=socket.AF_INET6) for _ in PORTS]
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(PORTS, found, strict=True))


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Web]]:
    """Starts an nginx; those that run are killed at the end."""
    if NGINX is None:
        pytest.skip("needs nginx")
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> Web:
        directory = tmp_path_factory.mktemp("nginx")
        files = directory / "files"
        files.mkdir()
        (files / "index.html").write_bytes(BODY)
        (files / "ok").write_bytes(BODY)
        (files / "big").write_bytes(BIG)
        (files / "included").write_bytes(b'one <!--# include virtual="/ok" --> two')
        authority, stranger = (Authority(tmp_path_factory.mktemp("ca")) for _ in range(2))
        ports = free_ports()
        (directory / "nginx.conf").write_text(
            CONFIG.format(
                **ports,
                good=authority.localhost,
                expired_files=authority.expired,
                stranger_files=stranger.localhost,
                ca=authority.file,
            )
        )
        command = [NGINX, "-p", f"{directory}/", "-c", "nginx.conf", "-e", "error.log"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=directory)
        started.append(process)
        wait_until(lambda: _listening(ports["clients"]), 10, "nginx listens")
        return Web(ports, authority, process)

    try:
        yield begin
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture
def web(start: Callable[[], Web]) -> Web:
    """An nginx."""
    return start()


def genhash(port: int, path: str) -> str:
    """What keepalived's own tool takes for the digest."""
    if GENHASH is None:
        pytest.skip("needs genhash, which comes with keepalived")
    command = [GENHASH, "-s", "127.0.0.1", "-p", str(port), "-u", path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"[0-9a-f]{32}", printed)
    assert found is not None, printed
    return found.group()


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@real_sockets
async def test_http(web: Web, version: str) -> None:
    async def outcome(path: str, **options: object) -> str:
        checker = HTTPChecker(path, version=version, **options)  # type: ignore[arg-type]
        return await attempt(checker, web.target())

    assert await outcome("/") == PASSED
    assert await attempt(HTTPChecker(version=version), web.target(address="::1")) == PASSED
    assert await outcome("/protocol", regex=rf"^HTTP/{re.escape(version)}$") == PASSED
    assert await outcome("/empty", status=204) == PASSED
    assert await outcome("/ok", status=204) == "/ok: status 200, expected 204"
    assert await outcome("/missing") == "/missing: status 404, expected 200-299"
    assert await outcome("/busy") == "/busy: status 503, expected 200-299"
    assert await outcome("/moved") == "/moved: status 302, expected 200-299"
    assert await outcome("/moved", status=range(300, 400)) == PASSED
    # The length of what is included is not known beforehand: in chunks, or up to the end.
    assert await outcome("/included", regex=r"^one It works!\n two$") == PASSED
    assert await outcome("/ok", no_match="works") == "/ok: b'works' is in the body: b'works'"
    assert await outcome("/method", method="HEAD") == PASSED
    assert await outcome("/method", method="DELETE", regex="^DELETE$") == PASSED
    assert await outcome("/ok", method="POST") == "/ok: status 405, expected 200-299"
    assert await outcome("/probe", headers={"X-Probe": "7"}, regex="^7 vrrpkit$") == PASSED


@real_sockets
async def test_host(web: Web) -> None:
    port = web.ports["plain"]
    for checker in (
        HTTPChecker("/host", regex=rf"^127\.0\.0\.1:{port}$"),
        HTTPChecker("/host", host="x.example.net:8080", regex=r"^x\.example\.net:8080$"),
        HTTPChecker("/", host="www.example.net", regex="^virtual host$"),
        HTTPChecker(["/ok", URL("/", host="www.example.net", regex="^virtual host$")]),
    ):
        assert await attempt(checker, web.target()) == PASSED
    checker = HTTPChecker(["/ok", URL("/host", host="www.example.net", regex="^x")])
    found = await attempt(checker, web.target())
    assert found == "/host: b'^x' is not in the body: b'virtual host'"


@real_sockets
async def test_compression_is_not_asked_for(web: Web) -> None:
    assert await attempt(HTTPChecker("/ok", regex="works"), web.target()) == PASSED
    checker = HTTPChecker("/ok", regex="works", headers={"Accept-Encoding": "gzip"})
    assert "is not in the body: b'\\x1f\\x8b" in await attempt(checker, web.target())


@real_sockets
async def test_big_body(web: Web) -> None:
    digest = hashlib.sha256(BIG).hexdigest()
    checker = HTTPChecker("/big", digest=digest, body_limit=len(BIG))
    assert await attempt(checker, web.target()) == PASSED
    assert await attempt(attrs.evolve(checker, digest="0" * 64), web.target()) != PASSED
    for small in (attrs.evolve(checker, body_limit=len(BIG) - 1), HTTPChecker("/big")):
        found = await attempt(small, web.target())
        assert found == f"/big: the body has more than {small.body_limit} octets"


@pytest.mark.parametrize("path", ["/ok", "/big"])
@real_sockets
async def test_digest_is_that_of_keepalived(web: Web, path: str) -> None:
    checker = HTTPChecker(path, digest=genhash(web.ports["plain"], path), body_limit=2**24)
    assert await attempt(checker, web.target()) == PASSED


@real_sockets
async def test_https(web: Web) -> None:
    ca = web.authority.file
    wrong = "certificate not accepted: wrong name: it is not for 'other.example.net'"
    for checker, says in (
        (HTTPSChecker("/ok", ca=ca, digest=hashlib.md5(BODY).hexdigest()), PASSED),
        (HTTPSChecker("/big", ca=ca, body_limit=2**24), PASSED),
        (HTTPSChecker("/included", ca=ca, regex="two$"), PASSED),
        (HTTPSChecker("/included", ca=ca, regex="two$", version="1.0"), PASSED),
        (HTTPSChecker("/sni", ca=ca, regex="^sni=$"), PASSED),
        (HTTPSChecker("/sni", ca=ca, host="localhost", regex="^sni=localhost$"), PASSED),
        (HTTPSChecker("/sni", ca=ca, server_name="localhost", regex="^sni=localhost$"), PASSED),
        (HTTPSChecker("/ok", ca=ca, server_name="other.example.net"), wrong),
        (HTTPSChecker("/ok", ca=ca, host="other.example.net"), wrong),
        (HTTPSChecker("/busy", ca=ca), "/busy: status 503, expected 200-299"),
        (HTTPSChecker("/ok", verify=False, server_name="other.example.net"), PASSED),
    ):
        assert await attempt(checker, web.target("tls")) == says


@real_sockets
async def test_https_certificates_that_are_not_accepted(web: Web) -> None:
    checker = HTTPSChecker(ca=web.authority.file)
    found = await attempt(checker, web.target("expired"))
    assert found == "certificate not accepted: it, or one that it depends on, has expired"
    found = await attempt(checker, web.target("stranger"))
    assert found.startswith("certificate not accepted: unknown CA (")
    found = await attempt(HTTPSChecker(), web.target("tls"))
    assert found.startswith("certificate not accepted: unknown CA (")
    for name in ("expired", "stranger"):
        assert await attempt(HTTPSChecker(verify=False), web.target(name)) == PASSED


@real_sockets
async def test_https_client_certificate(web: Web) -> None:
    ca, client = web.authority.file, web.client
    target = web.target("clients")
    assert await attempt(HTTPSChecker(ca=ca), target) == "/: status 400, expected 200-299"
    checker = HTTPSChecker(ca=ca, cert=client.cert, key=client.key)
    assert await attempt(checker, target) == PASSED


@real_sockets
async def test_one_protocol_for_the_other(web: Web) -> None:
    found = await attempt(HTTPSChecker(), web.target("plain"))
    assert found.startswith("TLS handshake failed: wrong version number; the port seems not to")
    assert await attempt(HTTPChecker(), web.target("tls")) == "/: status 400, expected 200-299"


@real_sockets
async def test_killed(start: Callable[[], Web]) -> None:
    web = start()
    assert await attempt(HTTPChecker(), web.target()) == PASSED
    web.process.kill()
    web.process.wait()
    found = await attempt(HTTPChecker(), web.target())
    assert found == f"cannot connect to {web.target()}: Connection refused"
