//! RFC 4648 base32 in lower case without padding: the alphabet of ids and join tokens.

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(encoded_len(bytes.len()));
    let (mut buffer, mut bits) = (0u32, 0u32);
    for &byte in bytes {
        buffer = (buffer << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(letter(buffer >> bits));
        }
        buffer &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(letter(buffer << (5 - bits)));
    }
    text
}

/// The bytes of `text`, or `None` for a foreign letter, a wrong length, or stray trailing bits
/// (two texts must never mean the same bytes). Upper case is accepted.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != encoded_len(N) {
        return None;
    }
    let mut bytes = [0u8; N];
    let (mut buffer, mut bits, mut at) = (0u32, 0u32, 0usize);
    for letter in text.bytes() {
        let letter = letter.to_ascii_lowercase();
        let value = ALPHABET.iter().position(|&known| known == letter)?;
        buffer = (buffer << 5) | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(at)? = u8::try_from((buffer >> bits) & 0xff).ok()?;
            at += 1;
        }
        buffer &= (1 << bits) - 1;
    }
    (buffer == 0 && at == N).then_some(bytes)
}

pub(crate) const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

pub(crate) fn is_letter(letter: char) -> bool {
    letter.is_ascii() && ALPHABET.contains(&(letter.to_ascii_lowercase() as u8))
}

fn letter(value: u32) -> char {
    char::from(ALPHABET[(value & 31) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(encode(b"foobar"), "mzxw6ytboi");
        assert_eq!(decode::<6>("mzxw6ytboi"), Some(*b"foobar"));
        assert_eq!(decode::<6>("MZXW6YTBOI"), Some(*b"foobar"));
        assert_eq!(decode::<6>("mzxw6ytbo1"), None);
        assert_eq!(decode::<6>("mzxw6ytbo"), None);
    }

    #[test]
    fn every_length_round_trips_and_stray_bits_are_refused() {
        let bytes = [0xffu8; 16];
        let text = encode(&bytes);
        assert_eq!(text.len(), 26);
        assert_eq!(decode::<16>(&text), Some(bytes));
        let stray = format!("{}7", &text[..25]);
        assert_ne!(stray, text);
        assert_eq!(decode::<16>(&stray), None);
        assert_eq!(encode(&[7u8; 32]).len(), 52);
    }
}
