"""Test your application's failover in no time: five simulated seconds take a few milliseconds.

pytest examples/05_test_failover.py        or: python examples/05_test_failover.py
"""

import asyncio

from vrrpkit import State, VRRPInstance
from vrrpkit.testing import Lan, virtual_time


class Writer:
    """The application: it may write only where the virtual address is."""

    def __init__(self, router: VRRPInstance) -> None:
        self.may_write = False
        router.on_transition(
            lambda change: setattr(self, "may_write", change.state is State.MASTER)
        )


@virtual_time(seed=7)
async def test_writer_follows_the_vip() -> None:
    async with Lan() as lan:
        a = Writer(lan.router("a", vips=["192.0.2.10/32"], priority=150))
        b = Writer(lan.router("b", vips=["192.0.2.10/32"]))
        await lan.settle()
        assert (a.may_write, b.may_write) == (True, False)
        lan.crash("a")
        await asyncio.sleep(3.7)
        assert lan.owner("192.0.2.10") == "b"
        assert b.may_write


if __name__ == "__main__":
    test_writer_follows_the_vip()
    print("b took over within 3.7 simulated seconds")
