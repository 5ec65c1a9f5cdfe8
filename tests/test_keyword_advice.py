"""Wrong inputs, as newcomers and users of keepalived write them: each is answered in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import attrs
import pytest

import vrrpkit
from vrrpkit import (
    ConfigError,
    MemoryBus,
    MemoryTable,
    SyncGroup,
    VirtualServer,
    VRRPInstance,
    bfd,
    checks,
    ipvs,
    vrrp,
)
from vrrpkit.configured import KEEPALIVED
from vrrpkit.keyword_advice import WORDS
from vrrpkit.vrrp.instance import VRRPInstanceArguments
from vrrpkit.vrrp.syncgroup import SyncGroupArguments

I = MemoryBus().interface("192.0.2.1")  # noqa: E741 - short, for a long table


def R(*place: object, **options: object) -> VRRPInstance:  # noqa: N802
    usual: dict[str, object] = {"vrid": 1, "vips": ["192.0.2.10/24"]}
    return VRRPInstance(*(place or ("web", I)), **(usual | options))  # type: ignore[arg-type]


def V(*services: object, **options: object) -> VirtualServer:  # noqa: N802
    usual: dict[str, object] = {"servers": ["10.0.0.1:80"], "table": MemoryTable()}
    return VirtualServer(*(services or ("192.0.2.10:80",)), **(usual | options))  # type: ignore[arg-type]


FACES = (vrrpkit, bfd, checks, ipvs, vrrp)
PUBLIC = {name: getattr(face, name) for face in FACES for name in face.__all__}
NAMES = {**PUBLIC, "I": I, "R": R, "V": V}

# What is written, and how the answer begins.
WRONG = [
    ("R(advert_int=1)", "VRRPInstance: advert_int= is called interval= here (seconds)"),
    ("R(virtual_router_id=5)", "VRRPInstance: virtual_router_id= is called vrid= here"),
    ("R(state='MASTER')", "VRRPInstance: state= is not needed: a router begins as BACKUP, and the"),
    ("R(nopreempt=True)", "VRRPInstance: instead of nopreempt= write preempt=False"),
    ("R(virtual_ipaddress=[])", "VRRPInstance: virtual_ipaddress= is called vips= here"),
    ("R(unicast_peer=[])", "VRRPInstance: unicast_peer= is called peers= here"),
    ("R(use_vmac=True)", "VRRPInstance: use_vmac= is called virtual_mac= here"),
    ("R(auth_pass='x')", "VRRPInstance: instead of auth_pass= write auth=PasswordAuth(...), with"),
    ("R(track_script=[])", "VRRPInstance: instead of track_script= write track=[TrackScript(...)]"),
    ("R(mcast_src_ip='x')", "VRRPInstance: mcast_src_ip= is called source= here"),
    ("V(lb_algo='rr')", "VirtualServer: lb_algo= is called scheduler= here"),
    ("V(lb_kind='NAT')", "VirtualServer: lb_kind= is called forward= here"),
    ("V(delay_loop=5)", "VirtualServer: instead of delay_loop= write the interval= of its check"),
    ("V(real_server=[])", "VirtualServer: real_server= is called servers= here"),
    (
        "V(persistence_timeout=5)",
        "VirtualServer: persistence_timeout= is called persistence= here (seconds)",
    ),
    ("V(sorry_server='x')", "VirtualServer: sorry_server= is called sorry= here"),
    (
        "VirtualServerConfig(lvs_sched='rr')",
        "VirtualServerConfig: lvs_sched= is called scheduler= here",
    ),
    ("BFDSession(neighbor_ip='192.0.2.2')", "BFDSession: neighbor_ip= is called neighbor= here"),
    ("BFDSession('192.0.2.2', hoplimit=9)", "BFDSession: hoplimit= is called ttl= here"),
    ("ConnectionSync('eth1', syncid=7)", "ConnectionSync: syncid= is called id= here"),
    ("RealServer('10.0.0.1', lvs_method='dr')", "RealServer: lvs_method= is called forward= here"),
    ("RealServer('10.0.0.1', delay_loop=3)", "RealServer: instead of delay_loop= write the inter"),
    ("V(protocol='TCP')", "VirtualServer: instead of protocol= write a part of the service: '192."),
    ("R(vrid=0)", "vrid 0 must be a whole number from 1 to 255: the number that all route"),
    ("R(vrid=256)", "vrid 256 must be a whole number from 1 to 255: the number that all rou"),
    ("R(vrid='5')", "vrid '5' must be a whole number from 1 to 255: the number that all rou"),
    ("R(vrid=True)", "vrid True must be a whole number from 1 to 255: the number that all ro"),
    ("R(vips='192.0.2.1/24')", "write vips as a list: vips=['192.0.2.1/24']"),
    ("R(vips=None)", "vips None must be a list; an empty one is written []"),
    (
        "R(vips=['192.0.2.0/24'])",
        "virtual address 192.0.2.0/24 is that of the network itself, or its bro",
    ),
    ("R(vips=['foo'])", "virtual address 'foo' is not of the form 'ADDRESS/PREFIX': 'foo' does "),
    ("R(vips=[5])", "virtual address '5' is not of the form 'ADDRESS/PREFIX': '5' does not "),
    ("R(vips=['224.0.0.1/24'])", "virtual address 224.0.0.1 must be a unicast address"),
    ("R(vips=['0.0.0.0/0'])", "virtual address 0.0.0.0 must be a unicast address"),
    ("R(vips=['192.0.2.9/24'] * 2)", "virtual address 192.0.2.9 is named twice"),
    (
        "R(vips=['192.0.2.9/24', '2001:db8::1/64'])",
        "vips mixes IPv4 and IPv6: announce one family per router, and put the ",
    ),
    ("R(interval=1000)", "interval 1000 cannot be said in VRRP version 3: use 0.01 to 40.95 seco"),
    ("R(interval=0)", "interval 0 cannot be said in VRRP version 3: use 0.01 to 40.95 seconds"),
    ("R(interval='1s')", "interval '1s' cannot be said in VRRP version 3: use 0.01 to 40.95 seco"),
    (
        "R(interval=float('nan'))",
        "interval nan cannot be said in VRRP version 3: use 0.01 to 40.95 secon",
    ),
    ("R(priority=256)", "priority 256 must be a whole number from 1 to 255: 255 is for the owne"),
    ("R(priority=0)", "priority 0 must be a whole number from 1 to 255: 255 is for the owner "),
    ("R(priority=100.0)", "priority 100.0 must be a whole number from 1 to 255: 255 is for the ow"),
    ("R(version=4)", "version 4 must be a whole number from 2 to 3: 3 is RFC 9568, 2 is RFC "),
    ("R(version='3')", "version '3' must be a whole number from 2 to 3: 3 is RFC 9568, 2 is RF"),
    (
        "R(version=2, interval=0.5)",
        "interval 0.5 cannot be said in VRRP version 2: use whole seconds from ",
    ),
    ("R(preempt_delay=-1)", "preempt_delay -1 must be 0 to 1000 seconds"),
    ("R(preempt_delay=5000)", "preempt_delay 5000 must be 0 to 1000 seconds"),
    ("R(down_factor=0)", "down_factor 0 must be a whole number from 1 to 100: adverts that may b"),
    ("R(auth='secret')", "auth must be a PasswordAuth or an HMACAuth, such as PasswordAuth('s3cr"),
    (
        "R(auth=PasswordAuth('x'))",
        "a password exists in VRRP version 2 only: use version=2, or HMACAuth",
    ),
    (
        "PasswordAuth('x' * 9)",
        "a VRRPv2 password is text of 1 to 8 octets; keepalived uses the first ",
    ),
    ("R(peers='192.0.2.2')", "write peers as a list: peers=['192.0.2.2']"),
    ("R(peers=['x'])", "peer 'x' is no IPv4 or IPv6 address; write it as '192.0.2.1' or '2001:"),
    ("R(profile='foo')", "profile 'foo' must be one of default, keepalived, strict, or a Profile"),
    ("R(profile=None)", "profile None must be one of default, keepalived, strict, or a Profile"),
    ("R(checksum='x')", "checksum form 'x' must be one of pseudo-header, message-only"),
    ("R(group='192.0.2.4')", "group 192.0.2.4 is no multicast address; for unicast use peers="),
    ("R(source='x')", "source 'x' is no IPv4 or IPv6 address; write it as '192.0.2.1' or '200"),
    ("R(preempt='no')", "preempt 'no' must be True or False"),
    (
        "R(announcements=5)",
        "announcements 5 must be an Announcements, such as Announcements(delay=",
    ),
    ("R(on_address_lost='x')", "on_address_lost 'x' must be one of reinstate, step_down, ignore"),
    ("R(vip_lease=1)", "vip_lease 1 must be a whole number from 2 to 86400: seconds that the a"),
    (
        "R(vip_lease=3000000)",
        "vip_lease 3000000 must be a whole number from 2 to 86400: seconds that",
    ),
    ("R(virtual_mac=5)", "virtual_mac, unless it is the name for the interface, 5 must be True o"),
    (
        "R(track=TrackInterface('eth1'))",
        "write track as a list: track=[TrackInterface(weight=0, reverse=False, ",
    ),
    ("R(track=['eth1'])", "track: each 'eth1' must be a Tracker, such as TrackInterface('eth1')"),
    ("R(notify=print)", "write notify as a list: notify=[<built-in function print>]"),
    ("R(notify=[print])", "notify: each <built-in function print> must be a notifier, such as Not"),
    (
        "VRRPInstance(I, 'web', vrid=1, vips=['192.0.2.10/24'])",
        "the name of a router, <vrrpkit.host.memory.interface.MemoryInterface o",
    ),
    (
        "VRRPInstance(5, I, vrid=1, vips=['192.0.2.10/24'])",
        "the name of a router, 5 must be text, such as 'web'",
    ),
    (
        "VRRPInstance('w', 5, vrid=1, vips=['192.0.2.10/24'])",
        "interface 5 must be the name of a network interface, such as 'eth0', o",
    ),
    (
        "VRRPInstance('w', I, vips=['192.0.2.10/24'])",
        "VRRPInstance(): missing a required argument: 'vrid'",
    ),
    (
        "VRRPInstance('w', I, vrid=1)",
        "VRRPInstance(): missing a required argument: 'vips'",
    ),
    ("R(routes=['foo'])", "destination 'foo' is not of the form '10.0.0.0/8' or '2001:db8::/32': "),
    ("R(rules=['foo'])", "'foo': 'foo' is not known here; a rule may have from, to, fwmark, iif,"),
    (
        "VRRPInstance('w', 'eth0', vrid=1, vips=['192.0.2.10/24'], netns='/run/netns/x')",
        "netns '/run/netns/x' must be a name that 'ip netns list' shows, withou",
    ),
    (
        "SyncGroup('g', [])",
        "sync group 'g' needs 2 members or more, not 0; a single VRRPInstance n",
    ),
    (
        "SyncGroup('g', ['a'])",
        "each member of the sync group 'g', 'a' must be a VRRPInstance; its nam",
    ),
    (
        "SyncGroup([R()], 'g')",
        "the name of a sync group, [<VRRPInstance 'web' vrid 1 INIT>] must be t",
    ),
    (
        "SyncGroup('g', [R(), R('b', I, vrid=2)], global_tracking=True)",
        "SyncGroup: global_tracking= is called member_weights= here",
    ),
    ("V('192.0.2.10')", "service 192.0.2.10:0/tcp is for every port, which takes persistence; w"),
    ("V(80)", "write services as a list: ['192.0.2.10:80/tcp']"),
    ("V('foo:80')", "service 'foo:80': 'foo' is no IPv4 or IPv6 address; write it as '192.0"),
    (
        "V('192.0.2.10:99999')",
        "service '192.0.2.10:99999': port '99999' must be a number from 1 to 65",
    ),
    (
        "V('www.example.com:80')",
        "service 'www.example.com:80': 'www.example.com' is no IPv4 or IPv6 add",
    ),
    ("V(servers='10.0.0.1:80')", "write servers as a list: servers=['10.0.0.1:80']"),
    ("V(servers=None)", "write servers as a list: ['10.0.0.1:8080'], with RealServer('10."),
    ("V(servers=['x'])", "real server 'x': 'x' is no IPv4 or IPv6 address; write it as '192.0.2."),
    (
        "V(servers=[('10.0.0.1', 80)])",
        "real server ('10.0.0.1', 80) must be text, such as '10.0.0.1:8080', or a R",
    ),
    (
        "V(scheduler='roundrobin')",
        "scheduler 'roundrobin' must be one of rr, wrr, lc, wlc, lblc, lblcr, s",
    ),
    ("V(forward='DR')", "forward 'DR' must be one of 'nat', 'dr', 'tun'"),
    ("V(forward='x')", "forward 'x' must be one of 'nat', 'dr', 'tun'"),
    ("V(weight=-1)", "weight -1 must be a whole number from 0 to 2147483647: 0 gets no conne"),
    ("V(weight='1')", "weight '1' must be a whole number from 0 to 2147483647: 0 gets no conn"),
    ("V(check='tcp')", "check 'tcp' is no Checker; write TCPChecker(), HTTPChecker('/healthz')"),
    (
        "V(check=TCPChecker)",
        "check <class 'vrrpkit.checks.tcp.TCPChecker'> is no Checker; write TCP",
    ),
    ("V(quorum=-1)", "quorum -1 must be a whole number from 1 to 2147483647: the weight that"),
    ("V(hysteresis=-1)", "hysteresis -1 must be a whole number from 0 to 0: less than quorum"),
    ("V(table='x')", "192.0.2.10:80/tcp: table 'x' is no IPVS table; write MemoryTable(), or"),
    ("RealServer('x')", "real server 'x': 'x' is no IPv4 or IPv6 address; write it as '192.0.2."),
    (
        "RealServer('10.0.0.1:80', weight='1')",
        "real server 10.0.0.1:80: weight '1' must be a whole number from 0 to 2",
    ),
    (
        "TCPChecker(connect_timeout=3)",
        "TCPChecker: connect_timeout= is called timeout= here (seconds)",
    ),
    ("TCPChecker(delay_loop=3)", "TCPChecker: delay_loop= is called interval= here (seconds)"),
    ("TCPChecker(interval=0)", "TCPChecker: interval 0 must be 0.01 to 86400 seconds"),
    ("TCPChecker(timeout=-1)", "TCPChecker: timeout -1 must be 0.001 to 86400 seconds"),
    ("TCPChecker(interval='5')", "TCPChecker: interval '5' must be 0.01 to 86400 seconds"),
    (
        "TCPChecker(retry=-1)",
        "TCPChecker: retry -1 must be a whole number from 0 to 1000000: it is a",
    ),
    (
        "HTTPChecker(path='x')",
        "HTTPChecker has no option path=; it knows urls, interval, timeout, dea",
    ),
    ("HTTPChecker(url='/')", "HTTPChecker has no option url=; did you mean urls=?"),
    (
        "HTTPChecker(status=999)",
        "status 999 must be of the numbers 200 to 599; write 200, range(200, 30",
    ),
    (
        "HTTPChecker(status_code='200')",
        "HTTPChecker has no option status_code=; did you mean status=?",
    ),
    ("DNSChecker(name='')", "DNS name '' must be a name, or '.' for the root"),
    (
        "DNSChecker(type='FOO')",
        "DNSChecker: type 'FOO' must be one of A, NS, CNAME, SOA, PTR, HINFO, M",
    ),
    ("ScriptChecker('')", "the command is empty; give the program and its arguments"),
    (
        "ScriptChecker('a | b')",
        "command 'a | b' has '|' in it, which only a shell understands, and it runs without one; "
        "write ['/bin/sh', '-c', 'a | b']",
    ),
    ("FileChecker(5)", "path 5 is no path of a file; write it as '/run/value'"),
    (
        "UDPChecker(payload='x')",
        "UDPChecker: payload must be octets or hexadecimal digits; write b'",
    ),
    ("TrackScript('')", "the command is empty; give the program and its arguments"),
    (
        "TrackScript('/bin/true', fall='2')",
        "TrackScript: fall '2' must be a whole number from 1 to 1000000: result",
    ),
    (
        "TrackScript('/bin/true', weight=300)",
        "TrackScript: weight 300 must be a whole number from -253 to 253: prior",
    ),
    ("TrackInterface('')", "TrackInterface: the name of the interface is empty"),
    ("TrackInterface(5)", "TrackInterface: interface 5 must be the name of one, such as 'eth1'"),
    ("TrackProcess('')", "TrackProcess: program '' must be the name of a program, as text"),
    ("TrackFile(5)", "path 5 is no path of a file; write it as '/run/value'"),
    ("TrackFunction(5)", "TrackFunction takes a function, not 5: write 'lambda: ...' around it"),
    (
        "TrackFunction(None)",
        "TrackFunction takes a function, not None: write 'lambda: ...' around i",
    ),
    ("Mail('h', to=[])", "mail: to is empty; give at least one address"),
    ("Mail('h', to='x')", "mail: to 'x' is no address; write it as 'ops@example.net', a name befo"),
    (
        "Mail('h:25', to='a@b.example')",
        "mail: host 'h:25' has a port in it; write it apart: Mail('h', port=25)",
    ),
    (
        "Mail('h', to='a@b.example', smtp_server='x')",
        "Mail: instead of smtp_server= write the first argument",
    ),
    (
        "Mail('h', to='a@b.example', notification_email_from='x@b.example')",
        "Mail: notification_email_from= is called sender= here",
    ),
    ("NotifyScripts(5)", "argv 5 is no command; write ['/usr/bin/pgrep', '-x', 'nginx'], or one "),
    ("HMACAuth('x')", "HMACAuth.__init__() missing 1 required keyword-only argument: 'active'"),
    ("VIP(None)", "virtual address None is not of the form 'ADDRESS/PREFIX': None does no"),
    (
        "VIP('192.0.2.1/24', label='x' * 40)",
        "label 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' on 192.0.2.1/24 must ",
    ),
    (
        "Peer('192.0.2.2', min_ttl=300)",
        "peer 192.0.2.2: min_ttl 300 must be a whole number from 1 to 255: 255 ",
    ),
    (
        "Announcements(repeat=0)",
        "announcements: repeat 0 must be a whole number from 1 to 60: packets p",
    ),
    (
        "Announcements(garp_master_delay=5)",
        "Announcements: garp_master_delay= is called delay= here (seconds)",
    ),
    ("NotifyFIFO(5)", "NotifyFIFO: the path 5 is no path of a file; write it as '/run/vrrp.fifo'"),
]


@pytest.mark.parametrize(("written", "answer"), WRONG, ids=[written for written, _ in WRONG])
def test_a_wrong_input_is_answered_in_one_line(written: str, answer: str) -> None:
    with pytest.raises((ConfigError, TypeError)) as caught:
        eval(written, dict(NAMES))
    told = str(caught.value)
    assert answer in told
    assert "\n" not in told
    assert len(told) < 400


@pytest.mark.parametrize("name", sorted(WORDS))
def test_every_word_of_keepalived_is_answered_with_ours(name: str) -> None:
    made = getattr(vrrpkit, name)
    options = inspect.signature(made).parameters
    for word, use in WORDS[name].items():
        if word in options:
            continue
        with pytest.raises(TypeError, match=f"{name}: (instead of )?{word}= "):
            made(**{word: None})
        ours = re.match(r"(\w+)=", use)
        assert ours is None or ours[1] in options, f"{name} has no {ours[1]}="


@pytest.mark.parametrize("made", [VRRPInstance, SyncGroup])
def test_every_keyword_of_a_description_is_answered(
    made: Callable[..., object],
) -> None:
    arguments = {VRRPInstance: VRRPInstanceArguments, SyncGroup: SyncGroupArguments}[made]
    answered = 0
    for field in attrs.fields(arguments):
        keywords = field.metadata.get(KEEPALIVED)
        if keywords is None or not field.init:
            continue
        for word in (*keywords.names, *keywords.instead):
            answered += 1
            with pytest.raises(TypeError, match=f"{made.__name__}: (instead of )?{word}= "):
                made(**{word: None})
        for use in keywords.instead.values():
            ours = re.match(r"(\w+)=", use)
            assert ours is None or ours[1] in inspect.signature(made).parameters
    assert answered > 5


def test_other_mistakes_of_arguments_stay_python_s() -> None:
    with pytest.raises(TypeError, match=r"VRRPInstance\(\): missing a required argument: 'vrid'"):
        VRRPInstance("web", I, vips=["192.0.2.10/24"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        VRRPInstance("web", I, 5, ["192.0.2.10/24"])  # type: ignore[misc]
    with pytest.raises(TypeError, match="has no option xyzzy=; it knows name, interface, vrid, "):
        R(xyzzy=1)


def test_what_else_is_wrong_with_a_call_is_as_python_says_it() -> None:
    with pytest.raises(TypeError, match="missing 1 required"):
        vrrpkit.Mail("mail.example.net")  # type: ignore[call-arg]
