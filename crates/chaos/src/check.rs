//! Judging what happened. Pure: values in, objections out.
//!
//! [`writes`] looks at what clients were told, [`watches`] at one stream, [`slots`] at the processes
//! that really run, [`growth`] at what daemons use.

pub mod growth;
pub mod slots;
pub mod watches;
pub mod writes;

use std::fmt;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The rule's name, as in docs/chaos.md.
    pub rule: &'static str,
    pub detail: String,
}

impl Objection {
    pub fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self { rule, detail: detail.into() }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}
