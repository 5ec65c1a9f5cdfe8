"""Raw sockets that are read late, or by the clock: when adverts came, and whether any was lost."""

from __future__ import annotations

import asyncio
import socket

import pytest

from system.lab import Host
from transport.stations import GROUPS, Listener, advert, now, stall, stations

pytestmark = pytest.mark.system

families = pytest.mark.parametrize("family", [4, 6])


@families
def test_loss_makes_deaf(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            one, two = Listener(), Listener()
            b.join(one, b.membership(7, family))
            b.join(two, b.membership(8, family))
            b.opened[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            sender = a.join(Listener(), a.membership(7, family))
            for _ in range(200):
                sender.send(advert(7), GROUPS[family])
            stall(0.02)
            b.transport.drain()
            assert 3 <= len(one.heard) < 200
            assert (one.deafened, two.deafened) == (1, 1)
            assert b.transport.counters.dropped == 200 - len(one.heard)
            for _ in range(5):
                sender.send(advert(7), GROUPS[family])
            stall(0.02)
            b.transport.drain()
            assert (one.deafened, two.deafened) == (1, 1)

    asyncio.run(main())


@families
def test_buffer_holds_two_down_intervals(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listeners = [Listener() for _ in range(255)]
            for vrid, listener in enumerate(listeners, 1):
                b.join(listener, b.membership(vrid, family))
            sender = a.join(Listener(), a.membership(7, family))
            for _ in range(8):
                for vrid in range(1, 256):
                    sender.send(advert(vrid), GROUPS[family])
            stall(0.05)
            arrived = now()
            while (b.transport.drain() or 0.0) < arrived:
                pass
            assert all(len(listener.heard) == 8 for listener in listeners)
            assert not any(listener.deafened for listener in listeners)

    asyncio.run(main())


@families
def test_a_drain_is_bounded_in_time_and_says_how_far_it_came(
    hosts: tuple[Host, Host], family: int
) -> None:
    """A receiver that takes 1 ms for each advert cannot keep up with 200 at once."""

    async def main() -> None:
        async with stations(hosts) as (a, b):
            slow = Listener(lambda: stall(0.001))
            b.join(slow, b.membership(7, family))
            sender = a.join(Listener(), a.membership(7, family))
            for number in range(200):
                sender.send(advert(7, number), GROUPS[family])
            stall(0.02)
            begin = now()
            read_to = b.transport.drain()
            assert read_to is not None
            assert 0 < len(slow.heard) <= 64, "one batch: it takes longer than a drain may"
            assert read_to == slow.heard[-1].received < begin
            while (b.transport.drain() or 0.0) < begin:
                pass
            assert [datagram.payload[2] for datagram in slow.heard] == list(range(200))

    asyncio.run(main())


def test_what_arrives_meanwhile_is_left_for_the_next_turn(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            sender = a.join(Listener(), a.membership(7))

            def answer() -> None:
                if len(echo.heard) < 500:
                    sender.send(advert(7), GROUPS[4])

            echo = Listener(answer)
            b.join(echo, b.membership(7))
            for _ in range(128):
                sender.send(advert(7), GROUPS[4])
            stall(0.02)
            begin = now()
            assert (b.transport.drain() or 0.0) >= begin, "all that had arrived"
            assert 128 <= len(echo.heard) <= 192

    asyncio.run(main())


@families
def test_a_stalled_loop_learns_when_adverts_came(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener = Listener()
            port = b.join(listener, b.membership(7, family))
            sender = a.join(Listener(), a.membership(7, family))
            sent = []
            for _ in range(3):
                sent.append(now())
                sender.send(advert(7), GROUPS[family])
                stall(0.05)
            port.drain()
            assert len(listener.heard) == 3
            for moment, datagram in zip(sent, listener.heard, strict=True):
                assert moment - 0.001 <= datagram.received < moment + 0.04

    asyncio.run(main())


@families
def test_relaxed_reading(hosts: tuple[Host, Host], family: int) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            one, two = Listener(), Listener()
            first = b.join(one, b.membership(7, family, interval=0.1))
            second = b.join(two, b.membership(8, family, interval=0.1))
            group = GROUPS[family]
            sender = a.join(Listener(), a.membership(7, family))
            before = b.sockets

            first.set_batching(0.6)
            assert b.sockets == before, "not all are relaxed"
            second.set_batching(0.6)
            assert b.sockets == before + 1
            await asyncio.sleep(0.02)
            sender.send(advert(7), group)
            await asyncio.sleep(0.2)
            assert one.heard == []
            second.drain()
            assert one.payloads == [advert(7)]
            sender.send(advert(7), group)
            await one.wait(2)
            assert now() - one.heard[1].received > 0.1, "read by the clock"

            sender.send(advert(7, 9), group)
            sent = now()
            sender.send(advert(8, 0), group)
            await two.wait(1)
            assert two.at[0] - sent < 0.1
            assert one.payloads[2:] == [advert(7, 9)]
            assert two.payloads == [advert(8, 0)]

            await asyncio.sleep(0.7)
            sender.send(advert(7), group)
            second.set_batching(None)
            assert b.sockets == before
            sent = now()
            await one.wait(4)
            assert one.at[3] - sent < 0.1
            assert two.payloads == [advert(8, 0)]

    asyncio.run(main())


def test_relaxing_for_few_adverts_is_refused(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (a, b):
            listener = Listener()
            port = b.join(listener, b.membership(7, interval=1.0))
            port.set_batching(0.5)
            assert b.sockets == 2
            a.join(Listener(), a.membership(7)).send(advert(7), GROUPS[4])
            await listener.wait(1)
            assert listener.at[0] - listener.heard[0].received < 0.1

    asyncio.run(main())


def test_a_newcomer_ends_relaxed_reading(hosts: tuple[Host, Host]) -> None:
    async def main() -> None:
        async with stations(hosts) as (_, b):
            first = b.join(Listener(), b.membership(7, interval=0.1))
            first.set_batching(0.6)
            assert b.sockets == 3
            second = b.join(Listener(), b.membership(8, interval=0.1))
            assert b.sockets == 2
            second.close()
            assert b.sockets == 3
            first.set_batching(0.7)
            assert b.sockets == 3
            first.close()
            await asyncio.sleep(0)
            assert b.sockets == 0

    asyncio.run(main())
