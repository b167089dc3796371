//! The machines of a lab: names, addresses and all that follows from them. Pure.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The machines' network; the host's end of it is `.1`.
pub const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 0);
const MANAGERS_FROM: u8 = 11;
const WORKERS_FROM: u8 = 21;
/// More would not fit into the addresses set apart for managers.
const MOST_MANAGERS: usize = 7;
const MOST_WORKERS: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Manager,
    Worker,
}

/// One machine; `number` counts from 1 within its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub role: Role,
    pub number: u8,
}

impl Machine {
    pub fn name(&self) -> String {
        match self.role {
            Role::Manager => format!("manager-{}", self.number),
            Role::Worker => format!("worker-{}", self.number),
        }
    }

    pub fn address(&self) -> Ipv4Addr {
        let [a, b, c, _] = NETWORK.octets();
        Ipv4Addr::new(a, b, c, self.host_part())
    }

    fn host_part(&self) -> u8 {
        match self.role {
            Role::Manager => MANAGERS_FROM + self.number - 1,
            Role::Worker => WORKERS_FROM + self.number - 1,
        }
    }

    /// The device in the lab's namespace at the other end of its cable.
    pub(crate) fn tap(&self) -> String {
        format!("tap{}", self.host_part())
    }

    /// Of the range that is for private use with qemu.
    pub(crate) fn mac(&self) -> String {
        format!("52:54:00:78:00:{:02x}", self.host_part())
    }

    /// The same at each start, and of no other machine of the lab.
    pub(crate) fn machine_id(&self, lab: u64) -> String {
        format!("{lab:016x}{:016x}", self.host_part())
    }
}

/// The host's address on the machines' network.
pub(crate) fn gateway() -> Ipv4Addr {
    let [a, b, c, _] = NETWORK.octets();
    Ipv4Addr::new(a, b, c, 1)
}

/// All machines of a lab of this size, managers first.
pub(crate) fn all(managers: usize, workers: usize) -> Result<Vec<Machine>> {
    let numbered = |role: Role, what: &'static str, count: usize, most: usize| {
        if count == 0 || count > most {
            let fix = format!("give a number from 1 to {most}");
            return Err(Error::BadOption { what, value: count.to_string(), fix });
        }
        let numbers = 1..=u8::try_from(count).unwrap_or(u8::MAX);
        Ok(numbers.map(move |number| Machine { role, number }))
    };
    let managers = numbered(Role::Manager, "--managers", managers, MOST_MANAGERS)?;
    let workers = numbered(Role::Worker, "--workers", workers, MOST_WORKERS)?;
    Ok(managers.chain(workers).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn machines_of_the_largest_lab_share_nothing() {
        let machines = all(MOST_MANAGERS, MOST_WORKERS).unwrap();
        let unique = |of: fn(&Machine) -> String| machines.iter().map(of).collect::<BTreeSet<_>>();
        assert_eq!(machines.len(), MOST_MANAGERS + MOST_WORKERS);
        assert_eq!(unique(Machine::name).len(), machines.len());
        assert_eq!(unique(|machine| machine.address().to_string()).len(), machines.len());
        assert_eq!(unique(Machine::mac).len(), machines.len());
        assert_eq!(unique(Machine::tap).len(), machines.len());
        assert_eq!(unique(|machine| machine.machine_id(7)).len(), machines.len());
        assert!(machines.iter().all(|machine| machine.machine_id(u64::MAX).len() == 32));
        assert!(machines.iter().all(|machine| machine.address() != gateway()));
    }

    #[test]
    fn a_size_that_cannot_be_names_its_option() {
        assert!(all(0, 1).unwrap_err().to_string().starts_with("--managers: 0"));
        assert!(all(1, 0).unwrap_err().to_string().starts_with("--workers: 0"));
        assert!(all(8, 1).unwrap_err().to_string().contains("from 1 to 7"));
    }
}
