//! Properties of the modes.
