"""A host in memory: interfaces, addresses, routes, without a kernel."""
