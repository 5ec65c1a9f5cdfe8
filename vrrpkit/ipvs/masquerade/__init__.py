"""Masquerading of what IPVS sends to real servers by NAT."""
