"""The side inside the IPVS kernel of :mod:`bench.check_cost`: one program, started when told to.

    python -m bench.inside_checks ADDRESS GATEWAY SERVERS PORT

Joins the network behind the machine's ``vec0`` and connects to the gateway's port. What comes from
there is a line with a JSON list, the program's arguments. When no more can come, a JSON object goes
back: ``healthy``, the real servers that the program has in the table, and ``said``, its output. The
machine ends with this program, and the other one with the machine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

INTERFACE = "vec0"


def join(address: str, gateway: str, servers: str) -> None:
    """Set the interface up, and the way to the servers."""
    for command in (
        f"addr add {address}/24 dev {INTERFACE}",
        f"link set {INTERFACE} up",
        f"route add {servers} via {gateway}",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def healthy() -> int:
    """Real servers in the table."""
    lines = Path("/proc/net/ip_vs").read_text().splitlines()
    return sum(line.startswith("  ->") and "RemoteAddress" not in line for line in lines)


def main() -> None:
    """Obey, asleep in between."""
    address, gateway, servers, port = sys.argv[1:]
    join(address, gateway, servers)
    with (
        socket.create_connection((gateway, int(port)), timeout=30) as connection,
        connection.makefile("r") as told,
        tempfile.TemporaryFile() as log,
    ):
        connection.settimeout(None)
        subprocess.Popen(json.loads(told.readline()), stdout=log, stderr=log)
        told.read()
        said = os.pread(log.fileno(), 2**20, 0).decode(errors="replace")
        answer = {"healthy": healthy(), "said": said[-2000:]}
        connection.sendall(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
