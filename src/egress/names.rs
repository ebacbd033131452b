//! Placeholder addresses for names: what a worker is told that a name's address is, so that its connection tells the name.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

/// How many names one attempt may look up.
pub const MOST: usize = 1_024;
/// `198.18.0.0/15`, which is for measuring networks and leads nowhere.
const BASE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const BITS: u32 = 15;

/// The names of one attempt, each with an address that stays its own.
#[derive(Debug, Default)]
pub struct Names {
    by_name: HashMap<String, u32>,
    in_order: Vec<String>,
}

impl Names {
    /// The placeholder of a name; none when there are too many names.
    pub fn address_of(&mut self, name: &str) -> Option<Ipv4Addr> {
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None => {
                let index = u32::try_from(self.in_order.len()).ok()?;
                if self.in_order.len() >= MOST {
                    return None;
                }
                self.in_order.push(name.to_owned());
                self.by_name.insert(name.to_owned(), index);
                index
            }
        };
        Some(Ipv4Addr::from(BASE + 1 + index))
    }

    /// The name that an address stands for.
    pub fn name_of(&self, address: IpAddr) -> Option<&str> {
        let IpAddr::V4(address) = address.to_canonical() else {
            return None;
        };
        let index = u32::from(address).checked_sub(BASE + 1)?;
        self.in_order.get(usize::try_from(index).ok()?).map(String::as_str)
    }
}

/// Whether an address is a placeholder, of whatever name.
pub fn is_placeholder(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(address) if u32::from(address) >> (32 - BITS) == BASE >> (32 - BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_address() {
        let mut names = Names::default();
        let first = names.address_of("a.example").unwrap();
        let second = names.address_of("b.example").unwrap();
        assert_ne!(first, second);
        assert_eq!(names.address_of("a.example"), Some(first));
        assert_eq!(names.name_of(second.into()), Some("b.example"));
        assert_eq!(names.name_of(second.to_ipv6_mapped().into()), Some("b.example"));
        assert!(is_placeholder(first.into()) && !is_placeholder([198, 20, 0, 1].into()));
        assert_eq!(names.name_of([198, 18, 0, 0].into()), None);
        for index in 0..MOST {
            let _ = names.address_of(&format!("n{index}.example"));
        }
        assert_eq!(names.address_of("one-too-many.example"), None);
        assert_eq!(names.address_of("a.example"), Some(first));
    }
}
