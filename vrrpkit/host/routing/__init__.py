"""The routes and rules of virtual routers in the kernel."""
