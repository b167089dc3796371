//! Unit tests of `apply`: what is refused, what follows from a write.

use super::*;
