//! `--constraint node.labels.zone==a`.

use cluster_model::constraint::Constraint;
use cluster_model::validate::CONSTRAINT_BYTES_MAX;

/// Checks the constraint and writes it the way the managers do.
pub fn constraint(text: &str) -> Result<String, String> {
    if text.len() > CONSTRAINT_BYTES_MAX {
        return Err(format!(
            "is {} characters long, more than {CONSTRAINT_BYTES_MAX}; write for example \
             node.labels.zone==a",
            text.len()
        ));
    }
    text.parse::<Constraint>()
        .map(|constraint| constraint.to_string())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_checked_before_anything_is_sent() {
        assert!(constraint("node.labels.zone == a").is_ok());
        assert!(constraint("node.hostname!=x").is_ok());
        assert!(constraint("node.labels.zone=a").unwrap_err().contains("=="));
        let long = format!("node.labels.zone=={}", "x".repeat(10_000));
        assert!(constraint(&long).unwrap_err().contains("10018 characters"));
        assert!(constraint("zone==a").unwrap_err().contains("node.labels"));
    }
}
