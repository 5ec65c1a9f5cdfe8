"""Our own tables in the host's packet filter."""
