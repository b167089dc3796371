use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::id::NodeId;
use crate::node::{NodeDescription, NodeSpec, NodeState};

fn node(labels: &[(&str, &str)]) -> Node {
    let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Node {
        id: NodeId(1),
        version: 1,
        created_at_ms: 1,
        name: "node-1".into(),
        spec: NodeSpec { labels, ..NodeSpec::default() },
        description: NodeDescription { address: "10.1.2.3".into(), ..NodeDescription::default() },
        state: NodeState::Ready,
        message: Arc::from(""),
        state_since_ms: 1,
        last_down_ms: 0,
        down_index: 0,
    }
}

fn parse(text: &str) -> Constraint {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn swarm_strings_parse_and_print_back() {
    for text in ["node.labels.rack==a", "node.hostname!=worker-1", "node.role==worker"] {
        assert_eq!(parse(text).to_string(), text);
    }
    assert_eq!(parse("node.labels.rack == a").to_string(), "node.labels.rack==a");
    assert_eq!(parse("node.labels.x==a!=b").rule, Rule::Equal("a!=b".into()));
}

#[test]
fn operators_mean_what_they_say() {
    let node = node(&[("rack", "A"), ("disks", "12"), ("kernel", "v5.15.0"), ("empty", "")]);
    for (text, holds) in [
        ("node.labels.rack==a", true),
        ("node.labels.rack!=a", false),
        ("node.labels.none==a", false),
        ("node.labels.none!=a", true),
        ("node.labels.rack in (b, a)", true),
        ("node.labels.rack in(b)", false),
        ("node.labels.rack !in (b,c)", true),
        ("node.labels.rack not in (a)", false),
        ("node.labels.none !in (a)", true),
        ("node.labels.disks > 9", true),
        ("node.labels.disks<=12.0", true),
        ("node.labels.disks<12", false),
        ("node.labels.rack<12", false),
        ("node.labels.rack>=12", false),
        ("node.labels.none<12", false),
        ("node.labels.kernel>=5.4.0", true),
        ("node.labels.kernel>5.15", false),
        ("node.labels.empty exists", true),
        ("node.labels.none exists", false),
        ("node.labels.none !exists", true),
        ("node.ip in (10.2.0.0/16, 10.1.0.0/16)", true),
        ("node.ip exists", true),
        ("node.platform.os exists", false),
    ] {
        assert_eq!(parse(text).holds(&node), holds, "{text}");
    }
}

#[test]
fn errors_name_the_mend() {
    let error = |t: &str| t.parse::<Constraint>().expect_err(t).to_string();
    assert!(error("node.role").contains("no operator"));
    assert!(error("node.labels.a=b").contains("KEY==VALUE"));
    assert!(error("node.role==").contains("no value"));
    assert!(error("rack==a").contains("node.labels.NAME"));
    assert!(error("==a").contains("is not a key"));
    assert!(error("node.labels.a < fast").contains("neither a number nor a version"));
    assert!(error("node.labels.a in b").contains("node.labels.zone in (a, b)"));
    assert!(error("node.labels.a in ()").contains("parentheses"));
    assert!(error("node.labels.a in (b,,c)").contains("parentheses"));
    assert!(error("node.labels.a exists b").contains("takes no value"));
    let many = format!("node.labels.a in ({})", vec!["x"; 65].join(","));
    assert!(error(&many).contains("65 values in its list, at most 64"));
    let long = error(&format!("node.labels.a=={}", "x".repeat(10_000)));
    assert!(long.contains("10015 characters long, at most 1024"), "{long}");
    let noisy = error(&"\u{7}".repeat(500));
    assert!(noisy.len() < 1_000 && !noisy.contains('\u{7}'), "{noisy}");
}

#[test]
fn addresses_match_blocks() {
    assert!(ip_matches("10.1.2.3", "10.1.0.0/16"));
    assert!(!ip_matches("10.2.2.3", "10.1.0.0/16"));
    assert!(ip_matches("10.2.2.3", "0.0.0.0/0"));
    assert!(ip_matches("10.2.2.3", "10.2.2.3"));
    assert!(!ip_matches("", "10.2.2.3"));
}

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        Just(Key::NodeId),
        Just(Key::NodeIp),
        Just(Key::NodeRole),
        "[a-z./(),-]{1,12}".prop_map(Key::NodeLabel),
        "in|exists|not|[a-zA-Z0-9_.]{1,12}".prop_map(Key::EngineLabel),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let value = || "[!-~]([ -~]{0,10}[!-~])?";
    let ordered = || "v?[0-9]{1,3}(\\.[0-9]{1,3}){0,2}(-rc\\.[0-9])?";
    let list = || prop::collection::vec("[a-z0-9=!<>./]{1,6}", 1..5);
    prop_oneof![
        value().prop_map(Rule::Equal),
        value().prop_map(Rule::NotEqual),
        ordered().prop_map(Rule::Less),
        ordered().prop_map(Rule::AtMost),
        ordered().prop_map(Rule::Greater),
        ordered().prop_map(Rule::AtLeast),
        list().prop_map(Rule::In),
        list().prop_map(Rule::NotIn),
        Just(Rule::Exists),
        Just(Rule::NotExists),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_parses_back((key, rule) in (key(), rule())) {
        let constraint = Constraint { key, rule };
        let text = constraint.to_string();
        prop_assert_eq!(text.parse::<Constraint>(), Ok(constraint), "{}", text);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "(node\\.labels\\.a)?[ -~\u{e9}]{0,40}") {
        if let Ok(constraint) = text.parse::<Constraint>() {
            let again = constraint.to_string().parse::<Constraint>();
            prop_assert_eq!(again, Ok(constraint.clone()));
            constraint.holds(&node(&[("a", "1")]));
        }
    }
}
