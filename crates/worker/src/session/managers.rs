//! Where managers are: what the command line said and what managers have said since, in a random
//! order so that workers spread over them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::Rng;
use rand::seq::SliceRandom;

use crate::data_dir::DataDir;
use crate::member::Member;

pub struct Managers {
    data: DataDir,
    known: Mutex<Known>,
}

struct Known {
    member: Member,
    /// From the command line; tried also when managers name others, which may be out of reach.
    given: Vec<String>,
    order: Vec<String>,
    next: usize,
    /// Given out last; not given again while there is another.
    last: String,
}

impl Managers {
    pub fn new(data: DataDir, member: Member, given: Vec<String>) -> Self {
        let mut known = Known { member, given, order: Vec::new(), next: 0, last: String::new() };
        known.shuffle();
        Self { data, known: Mutex::new(known) }
    }

    /// The next one to try; goes round.
    pub fn next(&self) -> String {
        let mut known = self.lock();
        for _ in 0..2 {
            let place = known.next % known.order.len().max(1);
            known.next = place + 1;
            match known.order.get(place) {
                Some(address) if *address == known.last && known.order.len() > 1 => {}
                Some(address) => {
                    known.last = address.clone();
                    break;
                }
                None => break,
            }
        }
        known.last.clone()
    }

    /// Any, for a single call.
    pub fn pick(&self) -> String {
        let known = self.lock();
        match known.order.len() {
            0 => String::new(),
            count => known.order[rand::rng().random_range(0..count)].clone(),
        }
    }

    /// Takes the managers' word and remembers it for the next start.
    pub fn learn(&self, addresses: Vec<String>) {
        let mut known = self.lock();
        if !known.member.learn(addresses) {
            return;
        }
        known.shuffle();
        tracing::info!(managers = known.member.managers.join(","), "managers changed");
        // Rare and small, so it is not worth a thread.
        if let Err(error) = known.member.store(&self.data) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the managers' addresses could not be kept for the next start");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn shuffle(&mut self) {
        let mut order = self.member.managers.clone();
        order.shuffle(&mut rand::rng());
        for given in &self.given {
            if !order.contains(given) {
                order.push(given.clone());
            }
        }
        self.order = order;
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_tried_in_turn_and_news_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let member = Member { name: "w".into(), boot: 1, managers: vec!["a:1".into()] };
        let managers = Managers::new(data.clone(), member, vec!["a:1".into(), "b:1".into()]);
        let mut seen: Vec<_> = (0..2).map(|_| managers.next()).collect();
        seen.sort();
        assert_eq!(seen, ["a:1", "b:1"]);
        managers.learn(vec!["c:1".into(), "d:1".into()]);
        let mut seen: Vec<_> = (0..4).map(|_| managers.next()).collect();
        seen.sort();
        assert_eq!(seen, ["a:1", "b:1", "c:1", "d:1"]);
        let kept = Member::load(&data).unwrap().unwrap();
        assert_eq!(kept.managers, ["c:1", "d:1"]);
    }
}
