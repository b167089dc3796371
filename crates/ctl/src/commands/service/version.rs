//! `--expect-version N`: a change is made only to the version that somebody looked at.

use cluster_pb::types::v1 as pb;
use cluster_wire::Code;

use crate::error::Error;

#[derive(Clone, Debug, clap::Args)]
pub struct Expected {
    /// Refuse when the service is no longer at this version (`service inspect` shows it)
    #[arg(
        long,
        value_name = "N",
        value_parser = version,
        allow_hyphen_values = true,
        help_heading = None::<&'static str>
    )]
    pub expect_version: Option<u64>,
}

fn version(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(version @ 1..) => Ok(version),
        _ => Err("write the number that `clusterctl service inspect` shows as version".to_owned()),
    }
}

impl Expected {
    /// What follows is written against the version that was read: comparing here is enough, and a
    /// change between reading and writing is refused by the managers.
    pub fn check(&self, service: &pb::Service) -> Result<(), Error> {
        match self.expect_version {
            Some(expected) if expected != service.version => {
                let mut error = Error::refused(format!(
                    "the service changed since it was read (version {expected}, now {}); read it \
                     again and repeat the change",
                    service.version
                ))
                .hint("`clusterctl service history` shows what changed");
                error.code = Some(Code::VersionMoved);
                Err(error)
            }
            _ => Ok(()),
        }
    }
}
