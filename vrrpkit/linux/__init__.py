"""What Linux offers, below everything: netlink, namespaces, timers, process events, file events."""
