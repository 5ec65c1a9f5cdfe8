"""A health checker of your own, against a little server that comes and goes.

python examples/07_own_checker.py 6379
"""

import asyncio
import sys
from contextlib import closing

import vrrpkit
from vrrpkit import Checker, CheckFailed, Target
from vrrpkit.checks import CheckScheduler


class RedisChecker(Checker):
    async def check(self, target: Target) -> None:
        reader, writer = await target.connect()
        with closing(writer):
            writer.write(b"PING\r\n")
            if (answer := await reader.readline()) != b"+PONG\r\n":
                raise CheckFailed(f"answered {answer!r}")


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer):
        writer.write(b"+PONG\r\n" if await reader.readline() == b"PING\r\n" else b"-ERR\r\n")


async def main(target: Target) -> None:
    async with CheckScheduler() as scheduler:
        scheduler.add(RedisChecker(interval=0.2, fall=2, retry=0), target, on_result=print)
        for _ in range(2):
            async with await asyncio.start_server(answer, *target.endpoint.destination):
                await asyncio.sleep(0.7)
            await asyncio.sleep(0.7)


vrrpkit.run(main(Target("127.0.0.1", int(sys.argv[1]), "redis")))
