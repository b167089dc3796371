//! Which addresses of the subnet are taken.
//!
//! A bitmap plus the order in which addresses were given back: addresses never
//! used come first, then the one free for longest, so that whoever still holds
//! an old address (connection tracking, a client's cache) meets a stranger as
//! late as possible. Rebuilt from the kernel at start; knows no files.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::subnet::Subnet;

#[derive(Debug)]
pub struct Ipam {
    subnet: Subnet,
    used: Vec<u64>,
    /// First index that was never handed out.
    fresh: u32,
    /// Given back, oldest first.
    freed: VecDeque<u32>,
}

/// `.0` is the network, `.1` the gateway.
const FIRST: u32 = 2;

impl Ipam {
    /// Starts with `taken` marked; addresses below the highest of them count
    /// as freed, because a predecessor probably used them.
    pub fn new(subnet: Subnet, taken: &[Ipv4Addr]) -> Self {
        let words = subnet.size().div_ceil(64) as usize;
        let mut ipam = Ipam { subnet, used: vec![0; words], fresh: FIRST, freed: VecDeque::new() };
        for index in taken.iter().filter_map(|a| subnet.index_of(*a)) {
            ipam.mark(index, true);
            ipam.fresh = ipam.fresh.max(index + 1);
        }
        ipam.freed = (FIRST..ipam.fresh).filter(|i| !ipam.is_used(*i)).collect();
        ipam
    }

    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let last = self.subnet.size() - 2; // the one after is the broadcast address
        let index = if self.fresh <= last {
            self.fresh += 1;
            self.fresh - 1
        } else {
            self.freed.pop_front()?
        };
        self.mark(index, true);
        Some(self.subnet.nth(index))
    }

    /// Gives an address back; one that is not taken is left alone.
    pub fn free(&mut self, address: Ipv4Addr) {
        let Some(index) = self.subnet.index_of(address) else {
            return;
        };
        if self.is_used(index) {
            self.mark(index, false);
            self.freed.push_back(index);
        }
    }

    fn is_used(&self, index: u32) -> bool {
        self.used[(index / 64) as usize] & (1 << (index % 64)) != 0
    }

    fn mark(&mut self, index: u32, used: bool) {
        let word = &mut self.used[(index / 64) as usize];
        let bit = 1 << (index % 64);
        *word = if used { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Subnet {
        "10.1.0.0/29".parse().unwrap()
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 0, last)
    }

    #[test]
    fn hands_out_every_address_once_and_then_says_no() {
        let mut ipam = Ipam::new(subnet(), &[]);
        let all: Vec<_> = std::iter::from_fn(|| ipam.allocate()).collect();
        assert_eq!(all, (2..=6).map(ip).collect::<Vec<_>>());
        assert_eq!(ipam.allocate(), None);
    }

    #[test]
    fn takes_never_used_addresses_before_freed_ones_and_the_oldest_freed_first() {
        let mut ipam = Ipam::new(subnet(), &[]);
        let (two, three) = (ipam.allocate().unwrap(), ipam.allocate().unwrap());
        ipam.free(three);
        ipam.free(two);
        let next: Vec<_> = std::iter::from_fn(|| ipam.allocate()).collect();
        assert_eq!(next, vec![ip(4), ip(5), ip(6), ip(3), ip(2)]);
    }

    #[test]
    fn freeing_twice_does_not_hand_out_twice() {
        let mut ipam = Ipam::new(subnet(), &[]);
        let two = ipam.allocate().unwrap();
        ipam.free(two);
        ipam.free(two);
        ipam.free(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(std::iter::from_fn(|| ipam.allocate()).count(), 5);
    }

    #[test]
    fn starts_after_what_a_predecessor_left() {
        let mut ipam = Ipam::new(subnet(), &[ip(4)]);
        let next: Vec<_> = std::iter::from_fn(|| ipam.allocate()).collect();
        assert_eq!(next, vec![ip(5), ip(6), ip(2), ip(3)]);
    }
}
