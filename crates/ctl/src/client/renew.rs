//! A fresh certificate for a context, from a manager that still knows the present one.

use cluster_identity::{Context, Identity, KeyAndCsr};
use cluster_pb::ca::v1::RenewRequest;
use cluster_pb::ca::v1::ca_client::CaClient;

use super::Client;
use crate::error::Error;

impl Client {
    /// The context with a new key and certificate, and with the CAs that count now.
    pub async fn renew(&mut self, context: &Context) -> Result<Context, Error> {
        let key = KeyAndCsr::generate().map_err(|error| Error::caused(&error))?;
        let request = RenewRequest { csr_der: key.csr_pem.clone().into_bytes() };
        let (_, channel) = self.dial().await?;
        let mut ca = CaClient::new(channel);
        let asked = tokio::time::timeout(self.timeout, ca.renew(request)).await;
        let answer = asked
            .map_err(|_| Error::timed_out("no manager renewed the certificate in time"))?
            .map_err(|status| Error::from_status(&status))?
            .into_inner();
        let identity = Identity::new(answer.chain, key.key_pem, answer.ca)
            .map_err(|error| Error::caused(&error))?;
        Context::new(&context.name, context.managers.clone(), &identity)
            .map_err(|error| Error::caused(&error))
    }
}
