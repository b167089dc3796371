//! Whole-plan tests.
