//! Errors on one line.

use std::error::Error;

/// An error with all of its causes. Some layers repeat their cause in their own words: what stands there
/// already is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Option<Box<Layer>> {
        let (text, rest) = texts.split_first()?;
        Some(Box::new(Layer { text, source: layers(rest) }))
    }

    #[test]
    fn causes_follow_and_what_was_said_is_not_repeated() {
        let said = |texts: &[&'static str]| layers(texts).map(|layer| chain(&*layer)).unwrap();
        assert_eq!(said(&["writing the log", "disk full"]), "writing the log: disk full");
        assert_eq!(
            said(&["writing: disk full", "disk full", "no space"]),
            "writing: disk full: no space"
        );
    }
}
