//! Proof of a key by a signature, where no TLS handshake can give it: of an expired certificate.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};

/// ECDSA P-256 over SHA-256; none when the key is not of that kind.
pub(crate) fn sign(key_pem: &str, message: &[u8]) -> Option<Vec<u8>> {
    let key = pem::parse(key_pem).ok()?;
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.contents(), &random).ok()?;
    Some(pair.sign(&random, message).ok()?.as_ref().to_vec())
}

/// `key` is an uncompressed point.
pub(crate) fn is_signed(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(message, signature).is_ok()
}
