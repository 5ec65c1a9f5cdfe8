"""Who hears of what happens: scripts, a FIFO, mail, functions of the program.

The notifiers are at the top, ``vrrpkit.Mail`` and so on; here is what one of your own needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrrpkit.lazy_names import lazy_names

if TYPE_CHECKING:
    from vrrpkit.publishing import Attachment as Attachment
else:
    __all__, __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "vrrpkit.publishing": ("Attachment",),
        },
    )
