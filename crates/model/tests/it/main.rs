//! Properties of `apply` under arbitrary logs.

mod properties;
