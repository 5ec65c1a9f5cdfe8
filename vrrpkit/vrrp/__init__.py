"""The VRRP stack: pure protocol (packet, auth, receive, machine) and the driver that runs it
(instance)."""
