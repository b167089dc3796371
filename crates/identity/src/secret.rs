//! Key material that cannot be printed by accident.

/// A private key in PEM. Has neither `Debug` nor `Display`: only [`SecretPem::expose`] shows it.
#[derive(Clone)]
pub struct SecretPem(String);

impl SecretPem {
    pub fn new(pem: impl Into<String>) -> Self {
        Self(pem.into())
    }

    /// The key itself. Callers write it to a 0600 file or into encrypted storage, nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
