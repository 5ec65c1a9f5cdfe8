"""The virtual addresses of one interface in the kernel."""
