"""Rules of our own in the host's packet filter: shared, replaced whole, and gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from namespaces import Net
from vrrpkit.commands import command
from vrrpkit.errors import HostError, PermissionMissing
from vrrpkit.host.firewall.nftables import Chain, Firewall
from vrrpkit.linux import capabilities

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("nft", path=command.PATH) is None, reason="needs nft"),
]

CHAIN = Chain(name="drops", type="filter", hook="input", priority="filter")
OTHER = Chain(name="nat-out", type="nat", hook="postrouting", priority="srcnat")
DROP_1 = "ip daddr 192.0.2.1 drop"
DROP_2 = "ip daddr 192.0.2.2 drop"
TTL = "ipv4/ip_default_ttl"
FORWARD = "ipv4/ip_forward"

HOLDER = """
import asyncio, sys
from vrrpkit.host.firewall.nftables import Chain, Firewall
async def main(netns=None, setting="", value="0"):
    firewall = Firewall(netns or None)
    chain = Chain(name="drops", type="filter", hook="input", priority="filter")
    settings = {setting: int(value)} if setting else {}
    await firewall.hold("holder", {chain: ["ip daddr 192.0.2.9 drop"]}, settings)
    print(firewall.table, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await firewall.release("holder")
asyncio.run(main(*sys.argv[1:]))
"""


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    asyncio.run(bounded())


def nft(net: Net, *words: str) -> str:
    return subprocess.run(
        ["ip", "netns", "exec", net.name, "nft", *words],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def tables(net: Net) -> list[str]:
    return re.findall(r"^table inet (\S+)", nft(net, "list", "tables"), re.MULTILINE)


@contextlib.contextmanager
def holder(
    net: Net, setting: str = "", value: int = 0, *, inside: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Another process with rules; it gives them up when its stdin is closed."""
    words = "" if inside else net.name, setting, str(value)
    prefix = ("ip", "netns", "exec", net.name) if inside else ()
    child = net.python(f"import sys\nsys.argv[1:] = {words!r}\n{HOLDER}", *prefix)
    assert child.stdin and child.stdout and child.stderr
    with child.stdin, child.stdout, child.stderr:
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def table_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def end(child: subprocess.Popen[str]) -> None:
    """Let it give up its rules."""
    assert child.stdin
    child.stdin.close()
    assert child.wait(20) == 0


def test_rules_are_there_until_they_are_released(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        assert firewall.table is None
        await firewall.hold("a", {CHAIN: [DROP_1]})
        assert tables(net) == [firewall.table]
        listed = nft(net, "list", "ruleset")
        assert "chain drops" in listed and DROP_1 in listed
        assert "type filter hook input priority filter; policy accept;" in listed
        await firewall.release("a")
        assert firewall.table is None
        await firewall.release("a")

    run(main())
    assert nft(net, "list", "ruleset") == ""


def test_holders_share_a_table_and_its_chains(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: [DROP_1]})
        await firewall.hold("b", {CHAIN: [DROP_2], OTHER: ["ip daddr 192.0.2.3 masquerade"]})
        listed = nft(net, "list", "ruleset")
        assert listed.count("chain ") == 2 and listed.count("table ") == 1
        assert DROP_1 in listed and DROP_2 in listed and "192.0.2.3 masquerade" in listed
        await firewall.release("b")
        listed = nft(net, "list", "ruleset")
        assert DROP_1 in listed and DROP_2 not in listed and listed.count("chain ") == 1
        await firewall.release("a")

    run(main())
    assert tables(net) == []


def test_a_holder_replaces_its_rules(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: [DROP_1]})
        table = firewall.table
        await firewall.hold("a", {CHAIN: [DROP_2]})
        listed = nft(net, "list", "ruleset")
        assert DROP_1 not in listed and DROP_2 in listed
        assert tables(net) == [table]
        await firewall.release("a")

    run(main())


def test_rules_of_others_are_not_touched(net: Net) -> None:
    nft(net, "add", "table", "inet", "vrrpkit-firewall")
    nft(net, "add", "table", "ip", "vrrpkit-firewall-1-ab")
    before = nft(net, "list", "ruleset")

    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: [DROP_1]})
        assert len(tables(net)) == 2
        await firewall.release("a")

    run(main())
    assert nft(net, "list", "ruleset") == before


def test_refused_rules_change_nothing(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        with pytest.raises(HostError, match=r"nft .*-f - failed: .*syntax error"):
            await firewall.hold("a", {CHAIN: ["ip daddr nowhere?"]}, {TTL: 33})
        assert firewall.table is None and tables(net) == [] and net.get(TTL) == 64
        await firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33})
        before = nft(net, "list", "ruleset")
        for who in ("a", "b"):
            with pytest.raises(HostError, match="failed"):
                await firewall.hold(who, {CHAIN: ["ip daddr 192.0.2.1 dorp"]})
        assert nft(net, "list", "ruleset") == before
        await firewall.hold("b", {CHAIN: [DROP_2]})
        assert DROP_1 in nft(net, "list", "ruleset") and net.get(TTL) == 33
        await firewall.release("a")
        await firewall.release("b")

    run(main())
    assert (tables(net), net.get(TTL)) == ([], 64)


def test_settings_are_borrowed_as_long_as_somebody_needs_them(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: []}, {TTL: 33, "ipv4/no_such_setting": 1})
        await firewall.hold("b", {CHAIN: []}, {TTL: 33})
        assert f'comment "{TTL}=64"' in nft(net, "list", "ruleset")
        await firewall.release("a")
        assert net.get(TTL) == 33
        await firewall.release("b")
        assert net.get(TTL) == 64

    run(main())


def test_a_setting_that_the_kernel_refuses_is_named(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        with pytest.raises(HostError, match=f"net/{TTL} cannot be set to 0: Invalid argument"):
            await firewall.hold("a", {CHAIN: [DROP_1]}, {FORWARD: 1, TTL: 0})
        assert firewall.table is None

    run(main())
    assert (tables(net), net.get(FORWARD)) == ([], 0)


def test_what_a_killed_process_left_is_removed(net: Net) -> None:
    with holder(net, TTL, 33) as child:
        left = table_of(child)
    assert tables(net) == [left] and net.get(TTL) == 33

    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33})
        assert tables(net) == [firewall.table]
        assert f"{TTL}=64" in nft(net, "list", "ruleset"), "what it was before anybody came"
        await firewall.release("a")

    run(main())
    assert net.get(TTL) == 64


def test_a_table_that_vanishes_meanwhile_is_no_problem(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(_: command.Command) -> dict[str, str]:
        return {"vrrpkit-firewall-1-ab": "vrrpkit-firewall/1/ab"}

    monkeypatch.setattr("vrrpkit.host.firewall.nftables._tables", found)

    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: [DROP_1]})
        assert tables(net) == [firewall.table]
        await firewall.release("a")

    run(main())
    assert tables(net) == []


def test_what_a_living_process_has_stays(net: Net) -> None:
    async def main(child: subprocess.Popen[str]) -> None:
        firewall = Firewall(net.name)
        theirs = table_of(child)
        await firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33, FORWARD: 1})
        assert sorted(tables(net)) == sorted([theirs, firewall.table or ""])
        await firewall.release("a")
        assert tables(net) == [theirs]
        assert net.get(TTL) == 33, "they still need it"
        assert net.get(FORWARD) == 0
        end(child)
        assert (tables(net), net.get(TTL)) == ([], 64)

    with holder(net, TTL, 33) as child:
        run(main(child))


def test_the_last_process_restores_what_was_before_the_first(net: Net) -> None:
    async def main(child: subprocess.Popen[str]) -> None:
        table_of(child)
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33})
        end(child)
        assert net.get(TTL) == 33
        await firewall.release("a")
        assert net.get(TTL) == 64

    with holder(net, TTL, 33) as child:
        run(main(child))


def test_the_own_namespace_needs_no_name(net: Net) -> None:
    with holder(net, inside=True) as child:
        table = table_of(child)
        assert tables(net) == [table]
        end(child)
    assert tables(net) == []


def test_a_table_that_was_flushed_comes_back(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        assert not await firewall.ensure()
        await firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33})
        before = nft(net, "list", "ruleset")
        assert not await firewall.ensure()
        nft(net, "flush", "ruleset")
        assert await firewall.ensure()
        assert nft(net, "list", "ruleset") == before
        await firewall.release("a")

    run(main())
    assert tables(net) == []


def test_a_removal_that_fails_is_told_and_frees_everything(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33})
        monkeypatch.setattr("vrrpkit.commands.process.subprocess.Popen", missing)
        await firewall.release("a")
        assert firewall.table is None

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("nsenter")

    run(main())
    assert "stay behind" in caplog.text and "nsenter" in caplog.text


def test_a_cancelled_hold_leaves_nothing_that_stays(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        for seconds in (0.0, 0.002, 0.006, 0.01, 0.02):
            holding = asyncio.create_task(firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33}))
            await asyncio.sleep(seconds)
            holding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await holding
                await firewall.release("a")
            assert (firewall.table, net.get(TTL)) == (None, 64)
        await firewall.hold("b", {CHAIN: [DROP_2]})
        assert tables(net) == [firewall.table]
        await firewall.release("b")

    run(main())
    assert tables(net) == []


KEEPER = """
import asyncio, sys
from vrrpkit.host.firewall.nftables import Chain, Firewall
async def main(netns, setting):
    firewall = Firewall(netns)
    chain = Chain(name="drops", type="filter", hook="input", priority="filter")
    await firewall.hold("other", {chain: ["ip daddr 192.0.2.8 drop"]}, {setting: 33})
    await firewall.hold("holder", {chain: ["ip daddr 192.0.2.9 drop"]}, {setting: 33})
    await firewall.keep("holder", "web 1")
    await firewall.keep("holder", "web 1")
    await firewall.release("other")
asyncio.run(main(*sys.argv[1:]))
"""


def test_what_is_kept_outlives_its_process_and_the_start_of_others(net: Net) -> None:
    with net.python(f"import sys\nsys.argv[1:] = {[net.name, TTL]!r}\n{KEEPER}") as child:
        assert child.wait(20) == 0
    (kept,) = tables(net)
    assert kept.startswith("vrrpkit-kept-web-1-")
    rule = "ip daddr 192.0.2.9 drop"

    def stays() -> None:
        listed = nft(net, "list", "ruleset")
        assert (rule in listed, "192.0.2.8" in listed, net.get(TTL)) == (True, False, 33)

    async def main() -> None:
        stays()
        await Firewall(net.name).sweep()
        other = Firewall(net.name)
        await other.hold("a", {CHAIN: [DROP_1]}, {TTL: 33})
        stays()
        await other.release("a")
        stays()
        next_run = Firewall(net.name)
        await next_run.discard("web")
        stays()
        await next_run.hold("b", {CHAIN: [DROP_2]}, {TTL: 33})
        stays()
        await next_run.discard("web 1")
        assert tables(net) == [next_run.table]
        assert net.get(TTL) == 33
        await next_run.discard("web 1")
        await next_run.release("b")

    run(main())
    assert (tables(net), net.get(TTL)) == ([], 64)


def test_what_is_kept_is_discarded_also_by_who_holds_nothing(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.keep("a", "web")
        await firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33})
        await firewall.keep("a", "web")
        assert firewall.table is None
        assert (len(tables(net)), net.get(TTL)) == (1, 33)
        with holder(net) as dead:
            theirs = table_of(dead)
        await firewall.discard("web")
        assert firewall.table is None
        assert (tables(net), net.get(TTL)) == ([theirs], 64)

    run(main())


def test_keeping_discarding_and_sweeping_are_not_cut_short(net: Net) -> None:
    async def cut(work: Coroutine[Any, Any, None], seconds: float) -> None:
        task = asyncio.create_task(work)
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait({task})

    async def main() -> None:
        for seconds in (0.001, 0.003, 0.006, 0.01, 0.015):
            firewall = Firewall(net.name)
            await firewall.hold("a", {CHAIN: [DROP_1]}, {TTL: 33})
            await cut(firewall.keep("a", "web"), seconds)
            (kept,) = tables(net)
            assert kept.startswith("vrrpkit-kept-web-") and firewall.table is None
            assert net.get(TTL) == 33
            await cut(firewall.discard("web"), seconds)
            assert (tables(net), net.get(TTL), firewall.table) == ([], 64, None)
            with holder(net, TTL, 33) as dead:
                table_of(dead)
            await cut(firewall.sweep(), seconds)
            assert (tables(net), net.get(TTL), firewall.table) == ([], 64, None)

    run(main())


def test_what_cannot_be_kept_or_discarded_is_logged(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        firewall = Firewall(net.name)
        await firewall.hold("a", {CHAIN: [DROP_1]})
        monkeypatch.setattr("vrrpkit.commands.process.subprocess.Popen", missing)
        await firewall.discard("web")
        assert "that were kept stay behind: " in caplog.text
        await firewall.keep("a", "web")
        assert "may be gone after this program: " in caplog.text
        assert firewall.table is None

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("nsenter")

    run(main())


def test_everybody_in_a_loop_gets_the_same(net: Net) -> None:
    async def main() -> None:
        firewall = Firewall.current(net.name)
        assert Firewall.current(net.name) is firewall
        assert Firewall.current() is not firewall
        with pytest.raises(HostError, match="no network namespace 'vkh-nowhere'"):
            Firewall.current("vkh-nowhere")

    run(main())


@pytest.mark.parametrize("program", ["nft", "nsenter"])
def test_a_missing_program_is_named(
    net: Net, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    def which(name: str, **_: object) -> str | None:
        return None if name == program else "/usr/bin/env"

    monkeypatch.setattr("vrrpkit.commands.command.shutil.which", which)
    package = {"nft": "nftables", "nsenter": "util-linux"}[program]

    async def main() -> None:
        firewall = Firewall(net.name)
        with pytest.raises(HostError, match=f"program {program}: .* package '{package}'"):
            await firewall.hold("a", {CHAIN: [DROP_1]})
        assert firewall.table is None

    run(main())


def test_a_missing_capability_is_named(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "_effective", lambda: 0)

    async def main() -> None:
        with pytest.raises(PermissionMissing, match="CAP_NET_ADMIN is missing: changing the rules"):
            await Firewall(net.name).hold("a", {CHAIN: [DROP_1]})

    run(main())
    assert tables(net) == []
