"""A link in memory with virtual routers on it, to which anything can happen."""
