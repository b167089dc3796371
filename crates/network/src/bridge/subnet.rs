//! An IPv4 range in CIDR notation, as the bridge uses it.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range such as `10.88.0.0/16`. The first host address is the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    base: u32,
    prefix_len: u8,
}

/// Why a text is no usable subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    #[error("`{0}` is not a subnet in the form 10.88.0.0/16")]
    Malformed(String),
    #[error("`{0}` has address bits beyond its prefix")]
    HostBits(String),
    #[error("the prefix of `{0}` must be between /8 and /29")]
    Size(String),
}

impl Subnet {
    pub const DEFAULT: Subnet = Subnet { base: u32::from_be_bytes([10, 88, 0, 0]), prefix_len: 16 };

    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    /// The bridge's own address.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + (self.size() - 1))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.prefix_len));
        u32::from(address) & mask == self.base
    }

    /// How many addresses the range spans, the reserved ones included.
    pub(crate) fn size(self) -> u32 {
        1u32 << (32 - u32::from(self.prefix_len))
    }

    pub(crate) fn nth(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + index)
    }

    pub(crate) fn index_of(self, address: Ipv4Addr) -> Option<u32> {
        self.contains(address).then(|| u32::from(address) - self.base)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || SubnetError::Malformed(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(malformed)?;
        let base = u32::from(address.parse::<Ipv4Addr>().map_err(|_| malformed())?);
        let prefix_len: u8 = prefix.parse().map_err(|_| malformed())?;
        if !(8..=29).contains(&prefix_len) {
            return Err(SubnetError::Size(text.to_owned()));
        }
        let subnet = Subnet { base, prefix_len };
        if !subnet.contains(Ipv4Addr::from(base)) {
            return Err(SubnetError::HostBits(text.to_owned()));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_a_range() {
        let subnet: Subnet = "10.88.0.0/16".parse().unwrap();
        assert_eq!(subnet, Subnet::DEFAULT);
        assert_eq!(subnet.to_string(), "10.88.0.0/16");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 88, 0, 1));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(10, 88, 255, 255));
        assert!(subnet.contains(Ipv4Addr::new(10, 88, 9, 9)));
        assert!(!subnet.contains(Ipv4Addr::new(10, 89, 0, 0)));
    }

    #[test]
    fn refuses_what_is_no_range() {
        for text in ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/x", "10.0.0.0/99"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        assert_eq!(
            "10.88.1.0/16".parse::<Subnet>(),
            Err(SubnetError::HostBits("10.88.1.0/16".into()))
        );
        assert_eq!("10.88.0.0/30".parse::<Subnet>(), Err(SubnetError::Size("10.88.0.0/30".into())));
    }
}
