"""The attacks of `network`, from steps that may reach every public address: all others stay out of reach. See weft's
`attacking`."""

from attacking import Aim, Loot, attack

from workflows import network


@attack(network=["*"])
def handler_s_port(aim: Aim, loot: Loot) -> None:
    """The engine's own API, by every name that this machine has."""
    network.handler_s_port.attacker(aim, loot)


@attack(network=["*"])
def private_addresses(aim: Aim, loot: Loot) -> None:
    """Loopback, link-local, metadata, private and shared ranges, the machine's own addresses."""
    network.private_addresses.attacker(aim, loot)


@attack(network=["*"])
def without_blocking(aim: Aim, loot: Loot) -> None:
    """connect() that doesn't wait, then a write; and data that goes along with the SYN."""
    network.without_blocking.attacker(aim, loot)


@attack(network=["*"])
def connects_anew(aim: Aim, loot: Loot) -> None:
    """AF_UNSPEC lets a socket go and be used again."""
    network.connects_anew.attacker(aim, loot)


@attack(network=["*"])
def datagrams(aim: Aim, loot: Loot) -> None:
    """UDP, with and without connect(); the suite hears what arrives."""
    network.datagrams.attacker(aim, loot)


@attack(network=["*"])
def families(aim: Aim, loot: Loot) -> None:
    """Sockets of every other kind."""
    network.families.attacker(aim, loot)


@attack(network=["*"])
def netlink(aim: Aim, loot: Loot) -> None:
    """What the kernel tells about the network, sockets, processes and keys by netlink."""
    network.netlink.attacker(aim, loot)


@attack(network=["*"])
def listens(aim: Aim, loot: Loot) -> None:
    """A service of its own where others could reach it; the suite tries."""
    network.listens.attacker(aim, loot)


@attack(network=["*"])
def local_sockets(aim: Aim, loot: Loot) -> None:
    """AF_UNIX by path, by its detours and by abstract name, of every kind."""
    network.local_sockets.attacker(aim, loot)


@attack(network=["*"])
def victim_s_sockets(aim: Aim, loot: Loot) -> None:
    """What the other organization's run listens on."""
    network.victim_s_sockets.attacker(aim, loot)


@attack(network=["*"])
def names(aim: Aim, loot: Loot) -> None:
    """Data carried out by questions for names; the suite's own name server hears them."""
    network.names.attacker(aim, loot)


@attack(network=["*"])
def by_programs(aim: Aim, loot: Loot) -> None:
    """curl, bash, a Python of its own."""
    network.by_programs.attacker(aim, loot)


@attack(network=["*"])
def by_proxy(aim: Aim, loot: Loot) -> None:
    """The proxy, where there is one, asked for what is forbidden."""
    network.by_proxy.attacker(aim, loot)
