"""Recordings of virtual routers, and their replay."""
