"""Mail through Debian's Postfix. Servers that hang or have gone: ``test_notifications.py``."""

from __future__ import annotations

import email
import email.policy
import pwd
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from checks.certificates import Authority
from system.lab import Host, require_root_and, wait_until
from system.ours import Vrrpkit, mastered
from system.scenario import VIP4, VRID, Bench
from system.services import POSTFIX, Postfix

pytestmark = pytest.mark.system

needs_postfix = pytest.mark.skipif(
    require_root_and(POSTFIX) is not None, reason=require_root_and(POSTFIX) or "installed"
)

NAME = "mx.example.net"

#: What Postfix needs to deliver into one directory, besides what it needs to be talked to.
DELIVERING = """\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
"""


class Mailbox(Postfix):
    """Postfix that delivers everything for example.net into one directory, and nothing else."""

    def __init__(self, host: Host, cert: Path, key: Path) -> None:
        super().__init__(host, cert, key)
        directory = host.directory / "postfix"
        boxes = host.directory / "boxes"
        boxes.mkdir()
        owner = pwd.getpwnam("nobody")
        boxes.chmod(0o777)
        with (directory / "main.cf").open("a") as config:
            config.write(
                f"""\
virtual_mailbox_domains = example.net
virtual_mailbox_base = {boxes}
virtual_mailbox_maps = static:ops/
virtual_uid_maps = static:{owner.pw_uid}
virtual_gid_maps = static:{owner.pw_gid}
smtpd_relay_restrictions = reject_unauth_destination
"""
            )
        with (directory / "master.cf").open("a") as services:
            services.write(DELIVERING)
        self._new = boxes / "ops" / "new"

    @property
    def mails(self) -> list[EmailMessage]:
        """What was delivered, in any order."""
        paths = list(self._new.iterdir()) if self._new.exists() else []
        found: list[EmailMessage] = []
        for path in paths:
            mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            found.append(mail)
        return found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def postfix(
    bench: Bench, authority: Authority, request: pytest.FixtureRequest
) -> Iterator[Mailbox]:
    """Postfix, whose configuration may get more lines by indirect parameters."""
    files = authority.issue(NAME, bench.watch.address)
    made = Mailbox(bench.watch, files.cert, files.key)
    made.configure(*getattr(request, "param", ()))
    made.start()
    wait_until(lambda: ":25 " in bench.watch.run(["ss", "-Hltn"]), 20, "Postfix")
    yield made
    made.stop()


def mailing(host: Host, server: str, **options: object) -> Vrrpkit:
    mail = {"kind": "Mail", "args": [server], "router_id": "lb1", "helo": "lb1.example.net"}
    router = {
        "name": "vip",
        "interface": host.dev,
        "vrid": VRID,
        "vips": [f"{VIP4}/32"],
        "interval": 0.2,
        "announcements": {"delay": 0},
        "notify": ["mail"],
    }
    usual = {"to": ["ops@example.net"], "sender": "lb1@example.net"}
    return Vrrpkit(host, routers=[router], notifiers={"mail": {**mail, **usual, **options}})


@needs_postfix
def test_postfix_delivers_what_happens(
    bench: Bench, postfix: Mailbox, authority: Authority
) -> None:
    ours = mailing(
        bench.a,
        bench.watch.address,
        security="starttls",
        port=25,
        ca=str(authority.file),
        body="{text}\n\n{kind} {name}: {state}, {reason}\n{time}",
    )
    ours.start()
    mastered(ours, VIP4)
    wait_until(lambda: len(postfix.mails) == 2, 10, "two letters")
    ours.stop()
    wait_until(lambda: len(postfix.mails) == 3, 10, "three letters")
    subjects = {str(mail["Subject"]).strip() for mail in postfix.mails}
    assert subjects == {
        "[lb1] VRRP Instance vip - Entering BACKUP state",
        "[lb1] VRRP Instance vip - Entering MASTER state",
        "[lb1] VRRP Instance vip - Stopping",
    }
    for mail in postfix.mails:
        assert (mail["From"], mail["To"]) == ("lb1@example.net", "ops@example.net")
        assert mail["Message-ID"] and mail["Date"]
        assert "with ESMTPS" in mail["Received"] and "from lb1.example.net" in mail["Received"]
    (master,) = [m for m in postfix.mails if "MASTER" in str(m["Subject"])]
    assert "VRRP Instance vip: MASTER, no-response" in str(master.get_content())
    assert "starttls=1" in postfix.logged()


@needs_postfix
def test_postfix_that_refuses_a_recipient_is_not_asked_again(
    bench: Bench, postfix: Mailbox, authority: Authority
) -> None:
    ours = mailing(bench.a, bench.watch.address, to=["ops@example.org"], security="none", flush=5)
    ours.start()
    mastered(ours, VIP4)
    ours.stop()
    # 554 5.7.1, relay access denied: once for each of three letters.
    assert ours.log().count("refused '[lb1] VRRP Instance vip") == 3
    assert postfix.logged().count("Relay access denied") == 3
    assert postfix.mails == []


@needs_postfix
def test_a_certificate_that_nobody_vouches_for_means_no_mail(
    bench: Bench, postfix: Mailbox
) -> None:
    ours = mailing(bench.a, bench.watch.address, security="starttls", port=25, flush=1)
    ours.start()
    mastered(ours, VIP4)
    ours.stop()
    assert "CERTIFICATE_VERIFY_FAILED" in ours.log()
    assert "3 letters were not delivered within 1 s" in ours.log()
    assert postfix.mails == []


@needs_postfix
@pytest.mark.parametrize("postfix", [["smtpd_tls_protocols = TLSv1"]], indirect=True)
def test_mail_goes_in_clear_text_where_postfix_offers_tls_that_fails(
    bench: Bench, postfix: Mailbox
) -> None:
    ours = mailing(bench.a, bench.watch.address, port=25)
    ours.start()
    mastered(ours, VIP4)
    wait_until(lambda: len(postfix.mails) == 2, 30, "two letters")
    ours.stop()
    wait_until(lambda: len(postfix.mails) == 3, 20, "three letters")
    assert "with ESMTPS" not in "".join(str(mail["Received"]) for mail in postfix.mails)
    assert ours.log().count("letters go in clear text") == 1


WANTS_FULL_NAMES = [
    "smtpd_helo_required = yes",
    "smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname",
    "smtpd_sender_restrictions = reject_non_fqdn_sender",
]


@needs_postfix
@pytest.mark.parametrize("postfix", [WANTS_FULL_NAMES], indirect=True)
def test_postfix_that_wants_full_names_takes_mail_of_a_host_without_one(
    bench: Bench, postfix: Mailbox
) -> None:
    ours = mailing(bench.a, bench.watch.address, port=25, helo=None, sender=None)
    ours.start()
    mastered(ours, VIP4)
    ours.stop()
    wait_until(lambda: len(postfix.mails) == 3, 30, "three letters")
    assert "reject:" not in postfix.logged()
    assert all(str(mail["From"]).startswith("vrrpkit@") for mail in postfix.mails)


@needs_postfix
@pytest.mark.parametrize(
    "postfix", [["smtpd_helo_restrictions = reject", "smtpd_delay_reject = yes"]], indirect=True
)
def test_postfix_that_refuses_the_name_has_refused_no_letter(
    bench: Bench, postfix: Mailbox
) -> None:
    ours = mailing(bench.a, bench.watch.address, port=25, security="none", flush=1)
    ours.start()
    mastered(ours, VIP4)
    ours.stop()
    assert "Helo command rejected" in ours.log()
    assert "3 letters were not delivered within 1 s" in ours.log()
