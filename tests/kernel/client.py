"""A client that counts who answered. Prints JSON, one line or many.

    python client.py many ADDRESS PORT SOURCE N
        N connections in turn: {"s1": 30, "s2": 10}
    python client.py datagrams ADDRESS PORT SOURCE N
        the same over UDP
    python client.py steady ADDRESS PORT SOURCE
        connections in turn until it is killed, a line for each
    python client.py hold ADDRESS PORT SOURCE
        one connection that stays, a line for each round trip

A connection that fails is counted under the name of the error.
"""

from __future__ import annotations

import collections
import json
import socket
import sys
import time

TIMEOUT = 5.0
"""Seconds that a connection and its answer may take each."""
PATIENCE = 60.0
"""Seconds that a connection that stays may be interrupted."""
PAUSE = 0.02
"""Seconds from one to the next."""

# Linux: bind the address only. connect() then takes the ports to one destination in turn; bind()
# draws them, the same one twice in one of 75 runs of 20. Of a tunnelled connection the director
# never sees the server's FIN, so a port that comes back within two minutes is no new connection.
IP_BIND_ADDRESS_NO_PORT = 24


def connect(address: str, port: int, source: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A connected socket."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind)
    try:
        sock.settimeout(TIMEOUT)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((source, 0))
        sock.connect((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def ask(address: str, port: int, source: str) -> str:
    """Who answers one HTTP request, or the name of the error."""
    try:
        with connect(address, port, source) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")
            answer = b""
            while chunk := sock.recv(4096):
                answer += chunk
    except OSError as error:
        return type(error).__name__
    return answer.rpartition(b"\r\n")[2].decode() or "nothing"


def ask_datagram(address: str, port: int, source: str) -> str:
    """Who answers one datagram, or the name of the error."""
    try:
        with connect(address, port, source, socket.SOCK_DGRAM) as sock:
            sock.send(b"who")
            return sock.recv(100).decode()
    except OSError as error:
        return type(error).__name__


def say(**fields: object) -> None:
    """One line of JSON."""
    print(json.dumps(fields), flush=True)


def steady(address: str, port: int, source: str) -> None:
    """Connect again and again."""
    while True:
        start = time.monotonic()
        say(start=start, who=ask(address, port, source), end=time.monotonic())
        time.sleep(PAUSE)


def hold(address: str, port: int, source: str) -> None:
    """Keep one connection and see that every line comes back."""
    who, rounds = "", 0
    try:
        with connect(address, port, source) as sock, sock.makefile("rb") as lines:
            sock.settimeout(PATIENCE)
            sock.sendall(b"hold\n")
            who = lines.readline().decode().strip()
            while True:
                said = f"round {rounds}\n".encode()
                sock.sendall(said)
                back = lines.readline()
                if back != said:
                    raise ConnectionError(f"{back!r} came back")
                rounds += 1
                say(who=who, rounds=rounds, end=time.monotonic())
                time.sleep(PAUSE)
    except OSError as error:
        say(who=who, rounds=rounds, error=f"{type(error).__name__}: {error}")


def main() -> None:
    what, address, port, source, *count = sys.argv[1:]
    one = {"many": ask, "datagrams": ask_datagram}.get(what)
    if one is not None:
        numbers = range(int(count[0]))
        say(**collections.Counter(one(address, int(port), source) for _ in numbers))
    else:
        {"steady": steady, "hold": hold}[what](address, int(port), source)


main()
