"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes depends on who else uses the machine; a test that hangs is ended anyway.
settings.register_profile("vrrpkit", deadline=None)
settings.load_profile("vrrpkit")
