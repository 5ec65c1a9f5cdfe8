"""The program ``nft``, which reads and changes the packet filter."""

from __future__ import annotations

from vrrpkit.commands.command import Command
from vrrpkit.errors import ConfigError, HostError, UntrustedCommand

__all__ = ["ask", "carry_out", "program"]

PATIENCE = 10.0
"""Seconds that it may take; with 10,000 addresses it takes a tenth of one."""
OUTPUT = 65536

UNSUPPORTED = ("Operation not supported", "Protocol not supported")
"""How it tells that the kernel was built without what it asks for."""


def program(netns: str | None) -> Command:
    """The program, run in a network namespace; ``None`` is that of the calling thread.

    :raises HostError: it is missing.
    """
    try:
        nft = Command(["nft"], timeout=PATIENCE, output_limit=OUTPUT)
    except ConfigError as problem:
        raise HostError(
            f"changing the packet filter needs the program nft: {problem}. It comes with the "
            "package 'nftables'."
        ) from None
    if netns is None:
        return nft
    try:
        words = ["nsenter", f"--net=/run/netns/{netns}", nft.program]
        return Command(words, timeout=PATIENCE, output_limit=OUTPUT)
    except ConfigError as problem:
        raise HostError(
            f"running nft in network namespace {netns!r} needs the program nsenter: {problem}. It "
            "comes with the package 'util-linux'."
        ) from None


async def carry_out(nft: Command, transaction: str) -> None:
    """Have a transaction carried out, all of it or nothing.

    :raises HostError: it is refused.
    """
    await ask(nft, "-f", "-", input=transaction)


async def ask(nft: Command, *words: str, input: str = "") -> str:
    """What it answers.

    :raises HostError: it cannot be run, or fails.
    """
    try:
        finished = await nft.run(*words, input=input.encode())
    except (OSError, UntrustedCommand) as problem:
        raise HostError(f"{nft} cannot be run: {problem}") from None
    output = finished.output.decode(errors="replace")
    if finished.ok:
        return output
    # The first line names the problem; those after it point at the place.
    first = output.strip().partition("\n")[0]
    how = str(finished) if finished.timed_out or not first else first
    if how.endswith(UNSUPPORTED):
        raise HostError(
            f"this kernel has no nftables for IPv4 and IPv6: {nft} answers {how!r}. Load it with "
            "'modprobe nf_tables' as root, or use a kernel with CONFIG_NF_TABLES_INET."
        )
    raise HostError(f"{nft} {' '.join(words)} failed: {how}")
