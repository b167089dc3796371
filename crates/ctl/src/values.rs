//! Values of single flags. Each parser says what is wrong and what to write instead; clap puts
//! the flag's name in front.

pub mod amount;
pub mod constraint;
pub mod duration;
pub mod environment;
pub mod label;
pub mod moment;
pub mod mount;
pub mod placement;
pub mod port;
pub mod probe;
pub mod words;

use crate::text::{one_line, shortened};

/// User text inside an error: one line, bounded.
fn shown(text: &str) -> String {
    shortened(&one_line(text), 60)
}
