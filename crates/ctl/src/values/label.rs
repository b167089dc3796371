//! `--label KEY=VALUE`, and keys to remove.

use super::shown;

pub type Label = (String, String);

/// `KEY=VALUE`, or `KEY` for a label without a value.
pub fn label(text: &str) -> Result<Label, String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("`{}` has no key; write KEY=VALUE", shown(text)));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_needs_a_key() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(label("a"), Ok(("a".into(), String::new())));
        assert!(label("=b").is_err());
        assert!(label("").is_err());
    }
}
