"""Tests on a kernel that has IPVS: user-mode-linux, booted by the tests themselves."""
