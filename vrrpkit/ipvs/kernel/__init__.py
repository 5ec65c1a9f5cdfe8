"""The IPVS table of the kernel, by generic netlink."""
