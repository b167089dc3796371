//! Parts of objects that most of them do not have: of a million tasks each byte counts.

use std::fmt;
use std::ops::Deref;

/// What reads the same as a part that is not there.
pub trait Absent: PartialEq + Clone + 'static {
    const ABSENT: &Self;
}

/// A part that is mostly absent, and takes a pointer then. It reads as [`Absent::ABSENT`].
#[derive(Clone)]
pub struct Seldom<T>(Option<Box<T>>);

impl<T: Absent> Seldom<T> {
    pub fn new(value: T) -> Self {
        Self((value != *T::ABSENT).then(|| Box::new(value)))
    }

    /// Changes it; what says nothing afterwards takes no room.
    pub fn edit(&mut self, change: impl FnOnce(&mut T)) {
        let mut value = match self.0.take() {
            Some(value) => value,
            None => Box::new(T::ABSENT.clone()),
        };
        change(&mut value);
        self.0 = (*value != *T::ABSENT).then_some(value);
    }

    /// Nothing of it is there.
    pub fn is_absent(&self) -> bool {
        self.0.is_none()
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Absent> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::ABSENT)
    }
}

// Absent has one form, so parts are equal when their boxes are.
impl<T: PartialEq> PartialEq for Seldom<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: Eq> Eq for Seldom<T> {}

impl<T: Absent + fmt::Debug> fmt::Debug for Seldom<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Absent for u8 {
        const ABSENT: &Self = &0;
    }

    #[test]
    fn what_is_absent_has_one_form() {
        let mut part = Seldom::new(0u8);
        assert!(part.is_absent() && part == Seldom::default());
        part.edit(|value| *value = 7);
        assert_eq!((*part, part == Seldom::new(7)), (7, true));
        part.edit(|value| *value = 0);
        assert!(part.is_absent() && *part == 0);
    }
}
