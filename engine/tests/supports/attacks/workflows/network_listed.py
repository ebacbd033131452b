"""The attacks of `network`, from steps that declare the very addresses: being on the list opens none of them. See weft's
`attacking`."""

from attacking import Aim, Loot, attack

from workflows import network

LISTED = [
    "127.0.0.1", "[::1]", "169.254.169.254", "169.254.170.2", "169.254.169.253", "168.63.129.16", "10.11.12.13",
    "172.16.5.6", "192.168.7.8", "100.64.1.2", "[fd00:ec2::254]",
]  # fmt: skip


@attack(network=LISTED)
def listed_addresses(aim: Aim, loot: Loot) -> None:
    """Loopback, link-local, metadata, private and shared ranges at a port that the list has."""
    for address in network.addresses(aim):
        loot.attempt(address, network.ask, address, 80)


@attack(network=LISTED)
def other_ports(aim: Aim, loot: Loot) -> None:
    """The same addresses at a port that it hasn't."""
    network.private_addresses.attacker(aim, loot)


@attack(network=LISTED)
def handler_s_port(aim: Aim, loot: Loot) -> None:
    """The engine's own API, by every name that this machine has."""
    network.handler_s_port.attacker(aim, loot)


@attack(network=LISTED)
def by_proxy(aim: Aim, loot: Loot) -> None:
    """The proxy, where there is one, asked for what is forbidden."""
    network.by_proxy.attacker(aim, loot)
