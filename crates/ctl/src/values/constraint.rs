//! `--constraint node.labels.zone==a`.

use cluster_model::constraint::Constraint;

/// Checks the constraint and writes it the way the managers do.
pub fn constraint(text: &str) -> Result<String, String> {
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
        assert!(constraint("zone==a").unwrap_err().contains("node.labels"));
    }
}
