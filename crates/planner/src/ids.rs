//! Ids for new tasks, from a seed the caller chose.

use cluster_model::TaskId;

/// A stream of task ids. Two streams with the same seed are equal, so the caller seeds each with
/// fresh randomness.
#[derive(Clone, Debug)]
pub struct Ids {
    state: u64,
}

impl Ids {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The first of `count` consecutive ids. A range never wraps around the end of the numbers.
    pub fn next_base(&mut self, count: u64) -> TaskId {
        loop {
            self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let base = scramble(self.state);
            if base.checked_add(count).is_some() {
                return TaskId(base);
            }
        }
    }
}

/// The output step of splitmix64: every bit of the input moves every bit of the output.
pub(crate) fn scramble(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_stream_and_ranges_do_not_meet() {
        let stream = |seed| {
            let mut ids = Ids::new(seed);
            (0..100).map(|_| ids.next_base(1000).0).collect::<Vec<_>>()
        };
        assert_eq!(stream(7), stream(7));
        assert_ne!(stream(7), stream(8));
        let mut bases = stream(7);
        bases.sort_unstable();
        assert!(bases.windows(2).all(|pair| pair[1] - pair[0] >= 1000));
    }
}
