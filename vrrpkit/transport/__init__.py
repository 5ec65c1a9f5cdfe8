"""How adverts travel: a small protocol, raw sockets for the wire, and a segment in memory."""
