//! What is less than what: numbers and versions, nothing else.

use std::cmp::Ordering;

/// Numbers compare as numbers; what is not a number on both sides compares as versions. None when
/// one side is neither.
pub(super) fn compare(left: &str, right: &str) -> Option<Ordering> {
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return left.partial_cmp(&right);
    }
    Some(Version::read(left)?.cmp(&Version::read(right)?))
}

/// Whether a text can be compared with anything.
pub(super) fn comparable(text: &str) -> bool {
    number(text).is_some() || Version::read(text).is_some()
}

/// Digits with an optional sign and fraction; no exponent, no infinity.
fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let good = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if good(whole) && good(fraction) { text.parse().ok() } else { None }
}

/// Dotted numbers with an optional leading `v` and an optional `-pre`, which comes before the
/// version without it.
#[derive(Debug, PartialEq, Eq)]
struct Version<'a> {
    numbers: Vec<u64>,
    pre: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre)),
            None => (text, None),
        };
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
        if pre.is_some_and(|pre| pre.is_empty() || !pre.chars().all(good)) {
            return None;
        }
        let mut read = Vec::new();
        for part in numbers.split('.') {
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            read.push(part.parse().ok()?);
        }
        // 1.2 is 1.2.0.
        while read.len() > 1 && read.last() == Some(&0) {
            read.pop();
        }
        Some(Self { numbers: read, pre })
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre, other.pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(two)) => compare_pre(one, two),
        })
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As semantic versions do it: part by part, numbers before words.
fn compare_pre(one: &str, two: &str) -> Ordering {
    let part = |text: &str| match text.parse::<u64>() {
        Ok(number) => (0, number, String::new()),
        Err(_) => (1, 0, text.to_owned()),
    };
    one.split('.').map(part).cmp(two.split('.').map(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_as_numbers_and_the_rest_as_versions() {
        let is = |left, order, right| assert_eq!(compare(left, right), order, "{left} {right}");
        is("9", Some(Ordering::Less), "10");
        is("-1", Some(Ordering::Less), "0.5");
        is("1.9", Some(Ordering::Greater), "1.10");
        is("v1.9", Some(Ordering::Less), "1.10");
        is("1.9.0", Some(Ordering::Less), "1.10.0");
        is("1.2", Some(Ordering::Equal), "1.2.0");
        is("5.15.0-91-generic", Some(Ordering::Less), "5.15.0");
        is("5.15.0-91-generic", Some(Ordering::Greater), "5.4.0");
        is("1.0.0-rc.2", Some(Ordering::Less), "1.0.0-rc.10");
        is("ssd", None, "1");
        is("", None, "1");
        is("1..2", None, "1");
        is("inf", None, "1");
    }
}
