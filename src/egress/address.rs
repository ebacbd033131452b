//! Which addresses a connection may go to, after a name has been resolved: public ones, and what the operator has opened.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::Finding;

/// Why an address is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The machine that the handler runs on.
    Loopback,
    /// A network of the machine's own.
    LinkLocal,
    /// A network that is not the internet. The operator may open parts of it.
    Private,
    /// A service that hands out credentials of the platform.
    Metadata,
    /// No address of a single machine on the internet.
    Special,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Private => "a private address",
            Self::Metadata => "an address of the platform's own services",
            Self::Special => "an address that is not on the public internet",
        })
    }
}

/// Services of cloud platforms: instance metadata, Azure's wire server, and those of other platforms.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Networks of IPv4 that are refused, with the bits that count.
const V4: [(Ipv4Addr, u8, Refused); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, Refused::Special),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Refused::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Refused::Private),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Refused::Loopback),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Refused::LinkLocal),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Refused::Private),
    (Ipv4Addr::new(192, 0, 0, 0), 24, Refused::Special),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Refused::Special),
    (Ipv4Addr::new(192, 31, 196, 0), 24, Refused::Special),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Refused::Special),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Refused::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Refused::Special),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Refused::Special),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Refused::Special),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Refused::Special),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Refused::Special),
];

/// Networks of IPv6 within the public `2000::/3` that are refused: protocol assignments with Teredo, documentation, 6to4.
const V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether an address is out of reach, and why. Forms of IPv6 that lead to an address of IPv4 are judged as that address, or
/// refused altogether where nobody needs them (6to4, Teredo, IPv4-compatible).
#[must_use]
pub fn refused(address: IpAddr) -> Option<Refused> {
    let address = plain(address);
    if METADATA.contains(&address) {
        return Some(Refused::Metadata);
    }
    match address {
        IpAddr::V4(v4) => V4
            .iter()
            .find(|(network, bits, _)| same_network(v4.into(), (*network).into(), *bits))
            .map(|(_, _, why)| *why),
        IpAddr::V6(v6) => refused_v6(v6),
    }
}

fn refused_v6(v6: Ipv6Addr) -> Option<Refused> {
    let segments = v6.segments();
    if v6 == Ipv6Addr::LOCALHOST {
        Some(Refused::Loopback)
    } else if segments[0] & 0xffc0 == 0xfe80 {
        Some(Refused::LinkLocal)
    } else if segments[0] & 0xfe00 == 0xfc00 {
        Some(Refused::Private)
    } else {
        let public = segments[0] & 0xe000 == 0x2000
            && !V6
                .iter()
                .any(|(network, bits)| same_network(v6.into(), (*network).into(), *bits));
        (!public).then_some(Refused::Special)
    }
}

/// The address of IPv4 where a form of IPv6 is nothing but another spelling of it: IPv4-mapped, and NAT64 by its well-known
/// prefix.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into(),
        _ => address,
    }
}

fn same_network(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            u32::from(a) & mask == u32::from(b) & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            u128::from(a) & mask == u128::from(b) & mask
        }
        _ => false,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    network: IpAddr,
    bits: u8,
    port: Option<u16>,
}

/// Private networks that the operator has opened. Never the loopback, link-local or metadata addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opened {
    ranges: Vec<Range>,
    loopback: bool,
}

impl Opened {
    /// Reads a list of `10.1.0.0/16:5432`, `192.168.1.7:443`, `[fd12:3456::/48]:443`; a `*` for the port is every port.
    ///
    /// # Errors
    /// Each entry that can't be read or does not lie within a private network, with `pointer` as its place.
    pub fn parse(list: &[String], pointer: &str) -> Result<Self, Vec<Finding>> {
        let (mut ranges, mut findings) = (Vec::new(), Vec::new());
        for entry in list {
            match range(entry) {
                Ok(range) => ranges.push(range),
                Err((code, message)) => findings.push(
                    Finding::new(pointer, code, message)
                        .hint("give private networks with a port, as `10.1.0.0/16:5432` or `[fd12:3456::/48]:443`"),
                ),
            }
        }
        if findings.is_empty() {
            Ok(Self {
                ranges,
                loopback: false,
            })
        } else {
            Err(findings)
        }
    }

    /// The machine's own loopback: for tests against local servers.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            ranges: Vec::new(),
            loopback: true,
        }
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, to: SocketAddr) -> Result<(), Refused> {
        match refused(to.ip()) {
            None => Ok(()),
            Some(Refused::Private) if self.has(to) => Ok(()),
            Some(Refused::Loopback) if self.loopback => Ok(()),
            Some(why) => Err(why),
        }
    }

    /// Whether an address of this very machine may be connected to, which any but the opened may not.
    #[must_use]
    pub fn admits_own(&self, to: SocketAddr) -> bool {
        self.loopback || self.has(to)
    }

    fn has(&self, to: SocketAddr) -> bool {
        let address = plain(to.ip());
        self.ranges.iter().any(|range| {
            same_network(address, range.network, range.bits) && range.port.is_none_or(|port| port == to.port())
        })
    }
}

fn range(entry: &str) -> Result<Range, (&'static str, String)> {
    let unreadable = || ("not_a_network", format!("`{entry}` is not a network with a port"));
    let (network, port) = entry.rsplit_once(':').ok_or_else(unreadable)?;
    let port = match port {
        "*" => None,
        port => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(unreadable)?),
    };
    let bracketed = network.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (address, bits) = match bracketed.unwrap_or(network).split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| unreadable())?)),
        None => (bracketed.unwrap_or(network), None),
    };
    let address: IpAddr = address.parse().map_err(|_| unreadable())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    if bits > most || address.is_ipv6() != bracketed.is_some() {
        return Err(unreadable());
    }
    let private = [
        (IpAddr::from([10, 0, 0, 0]), 8),
        (IpAddr::from([100, 64, 0, 0]), 10),
        (IpAddr::from([172, 16, 0, 0]), 12),
        (IpAddr::from([192, 168, 0, 0]), 16),
        (IpAddr::from([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7),
    ];
    if !private
        .iter()
        .any(|(network, least)| bits >= *least && same_network(address, *network, *least))
    {
        let message = format!("`{entry}` is not within a private network, and nothing else can be opened");
        return Err(("not_private", message));
    }
    Ok(Range {
        network: address,
        bits,
        port,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_kind_is_told_apart() {
        for (text, why) in [
            ("127.0.0.1", Refused::Loopback),
            ("127.255.255.254", Refused::Loopback),
            ("::1", Refused::Loopback),
            ("::ffff:127.0.0.1", Refused::Loopback),
            ("64:ff9b::7f00:1", Refused::Loopback),
            ("169.254.0.1", Refused::LinkLocal),
            ("fe80::1", Refused::LinkLocal),
            ("10.0.0.1", Refused::Private),
            ("172.31.255.255", Refused::Private),
            ("192.168.0.1", Refused::Private),
            ("100.127.0.1", Refused::Private),
            ("fd12::1", Refused::Private),
            ("::ffff:10.0.0.1", Refused::Private),
            ("169.254.169.254", Refused::Metadata),
            ("168.63.129.16", Refused::Metadata),
            ("100.100.100.200", Refused::Metadata),
            ("fd00:ec2::254", Refused::Metadata),
            ("::ffff:a9fe:a9fe", Refused::Metadata),
            ("64:ff9b::a83f:8110", Refused::Metadata),
            ("0.0.0.0", Refused::Special),
            ("::", Refused::Special),
            ("::127.0.0.1", Refused::Special),
            ("224.0.0.1", Refused::Special),
            ("255.255.255.255", Refused::Special),
            ("198.19.0.1", Refused::Special),
            ("203.0.113.9", Refused::Special),
            ("ff02::1", Refused::Special),
            ("2001:db8::1", Refused::Special),
            ("2001::1", Refused::Special),
            ("2002:7f00:1::1", Refused::Special),
            ("64:ff9b:1::1", Refused::Special),
            ("100::1", Refused::Special),
            ("fec0::1", Refused::Special),
            ("4000::1", Refused::Special),
        ] {
            assert_eq!(refused(ip(text)), Some(why), "{text}");
        }
        for text in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "9.255.255.255",
            "2606:4700::1111",
            "2a01:111::1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert_eq!(refused(ip(text)), None, "{text}");
        }
    }

    #[test]
    fn only_private_networks_can_be_opened() {
        let list = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let opened = Opened::parse(
            &list(&["10.1.0.0/16:5432", "192.168.1.7:*", "[fd12:3456::/48]:443", "fd00::1"]),
            "x",
        );
        assert_eq!(
            opened.unwrap_err().len(),
            1,
            "an address of IPv6 without brackets has no port"
        );
        let opened = Opened::parse(
            &list(&[
                "10.1.0.0/16:5432",
                "192.168.1.7:*",
                "[fd12:3456::/48]:443",
                "[fc00::/7]:80",
            ]),
            "x",
        )
        .unwrap();
        for (to, good) in [
            ("10.1.2.3:5432", true),
            ("10.1.2.3:5433", false),
            ("10.2.0.1:5432", false),
            ("192.168.1.7:1", true),
            ("192.168.1.8:1", false),
            ("[::ffff:10.1.2.3]:5432", true),
            ("[fd12:3456::9]:443", true),
            ("[fd12:3457::9]:443", false),
            ("[fd00:ec2::254]:80", false),
            ("127.0.0.1:5432", false),
            ("1.1.1.1:1", true),
        ] {
            assert_eq!(opened.admit(to.parse().unwrap()).is_ok(), good, "{to}");
        }
        for bad in [
            "127.0.0.0/8:80",
            "0.0.0.0/0:443",
            "10.0.0.0/7:443",
            "169.254.0.0/16:80",
            "[::/0]:1",
            "[fe80::/10]:1",
            "8.8.8.8:53",
            "10.0.0.0/33:1",
            "10.0.0.0/8",
            "10.0.0.0/8:0",
            "name:1",
        ] {
            assert!(Opened::parse(&list(&[bad]), "x").is_err(), "{bad}");
        }
    }

    proptest! {
        /// A refused address of IPv4 stays refused in every form of IPv6 that leads to it.
        #[test]
        fn no_spelling_gets_around(bytes: [u8; 4], host: u64) {
            let v4 = Ipv4Addr::from(bytes);
            let [a, b] = [u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])];
            if refused(v4.into()).is_some() {
                for form in [
                    v4.to_ipv6_mapped(),
                    Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b),
                    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                    Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, a, b),
                    Ipv6Addr::from((u128::from(u32::from_be_bytes([0x20, 0x02, bytes[0], bytes[1]])) << 96)
                        | (u128::from(b) << 80) | u128::from(host)),
                    Ipv6Addr::from((0x2001_0000_u128 << 96) | u128::from(host) << 32 | u128::from(!u32::from(v4))),
                ] {
                    prop_assert!(refused(form.into()).is_some(), "{form}");
                }
            }
        }

        /// What is let through is what the standard library's own classes don't name either.
        #[test]
        fn nothing_special_is_let_through(bytes: [u8; 4], wide: u128) {
            let v4 = Ipv4Addr::from(bytes);
            if refused(v4.into()).is_none() {
                prop_assert!(!(v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_multicast()
                    || v4.is_broadcast() || v4.is_unspecified() || v4.is_documentation()));
            }
            let v6 = Ipv6Addr::from(wide);
            if refused(v6.into()).is_none() {
                prop_assert!(!(v6.is_loopback() || v6.is_multicast() || v6.is_unspecified()
                    || v6.is_unique_local() || v6.is_unicast_link_local()));
            }
        }
    }
}
