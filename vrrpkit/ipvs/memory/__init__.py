"""An IPVS table in memory."""
