"""A real server that says its name: over HTTP, on connections that stay, and over UDP.

    python server.py NAME PORT ADDRESS...

A connection that starts with ``hold`` gets the name and then every line back, until it is closed.
Any other gets one HTTP answer with the name. A UDP datagram gets the name, from the address that it
was sent to if that is one of those given: the client would not take it from another. No asyncio:
importing that takes most of a second in the IPVS kernel.
"""

from __future__ import annotations

import socket
import sys
import threading


def answer(connection: socket.socket, name: bytes) -> None:
    """Serve one connection."""
    try:
        with connection, connection.makefile("rb") as lines:
            line = lines.readline()
            if line.strip() == b"hold":
                while line:
                    connection.sendall(name + b"\n" if line.strip() == b"hold" else line)
                    line = lines.readline()
                return
            while line.strip():
                line = lines.readline()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + name)
    except OSError:
        pass  # the client is gone


def connections(listener: socket.socket, name: bytes) -> None:
    """Serve all connections, each in a thread."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, name), daemon=True).start()


def datagrams(sock: socket.socket, name: bytes) -> None:
    """Serve all datagrams."""
    while True:
        _, client = sock.recvfrom(2000)
        sock.sendto(name, client)


def bound(kind: int, address: str, port: int) -> socket.socket:
    """A socket on an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind((address, port))
    return sock


def main() -> None:
    name, port, addresses = sys.argv[1].encode(), int(sys.argv[2]), sys.argv[3:]
    anywhere = ["0.0.0.0", "::"]
    threads: list[threading.Thread] = []
    for address in anywhere:
        listener = bound(socket.SOCK_STREAM, address, port)
        listener.listen(512)
        threads.append(threading.Thread(target=connections, args=(listener, name)))
    for address in anywhere + addresses:
        sock = bound(socket.SOCK_DGRAM, address, port)
        threads.append(threading.Thread(target=datagrams, args=(sock, name)))
    for thread in threads:
        thread.start()
    print("ready", flush=True)


main()
