"""The load balancer: pools of real servers, kept in step with the IPVS table of the kernel."""
