//! The packet filter rules of the bridge, in a table of our own.
//!
//! Loaded as one `nft -f -` transaction, so there is no moment with half the
//! rules. Other people's tables are looked at, never touched.

use std::io;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::subnet::Subnet;

/// What went wrong with `nft`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

/// The whole table: traffic leaving the subnet takes the machine's address,
/// and nobody outside opens a connection into the subnet. The machine itself
/// may, its packets are not forwarded ones.
pub fn rules(table: &str, bridge: &str, subnet: Subnet) -> String {
    format!(
        "table ip {table}\n\
         delete table ip {table}\n\
         table ip {table} {{\n\
         \tchain forward {{\n\
         \t\ttype filter hook forward priority 0; policy accept;\n\
         \t\toifname \"{bridge}\" iifname != \"{bridge}\" ct state established,related accept\n\
         \t\toifname \"{bridge}\" iifname != \"{bridge}\" drop\n\
         \t}}\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority 100; policy accept;\n\
         \t\tip saddr {subnet} oifname != \"{bridge}\" masquerade fully-random\n\
         \t}}\n\
         }}\n"
    )
}

pub async fn load(text: &str) -> Result<(), Error> {
    nft(&["-f", "-"], text).await.map(drop)
}

/// Removes our table; one that is gone already is fine.
pub async fn unload(table: &str) -> Result<(), Error> {
    load(&format!("table ip {table}\ndelete table ip {table}\n")).await
}

/// A chain of this machine's packet filter, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub family: String,
    pub table: String,
    pub name: String,
    /// What it does not decide about forwarded IPv4 packets ends in a drop.
    pub drops_forwarded: bool,
}

/// Foreign tables that drop forwarded packets by default. An accept in our
/// chain cannot overrule them, so containers would be cut off.
pub async fn foreign_drops(own_table: &str) -> Result<Vec<String>, Error> {
    let chains = chains().await?.into_iter();
    let drops = chains.filter(|chain| chain.drops_forwarded && chain.table != own_table);
    Ok(drops.map(|chain| format!("{} {}", chain.family, chain.table)).collect())
}

pub async fn chains() -> Result<Vec<Chain>, Error> {
    let listing = nft(&["-j", "list", "chains"], "").await?;
    let listing: Value =
        serde_json::from_str(&listing).map_err(|error| Error::Refused(error.to_string()))?;
    let chains = listing["nftables"].as_array().into_iter().flatten();
    Ok(chains.filter_map(|entry| chain(entry.get("chain")?)).collect())
}

fn chain(listed: &Value) -> Option<Chain> {
    let text = |name: &str| listed[name].as_str().map(str::to_owned);
    let (family, table, name) = (text("family")?, text("table")?, text("name")?);
    let drops_forwarded = listed["hook"] == "forward"
        && listed["policy"] == "drop"
        && matches!(family.as_str(), "ip" | "inet");
    Some(Chain { family, table, name, drops_forwarded })
}

/// What `nft --version` states, the number alone.
pub async fn version() -> Result<String, Error> {
    let text = nft(&["--version"], "").await?;
    let number = text.split_whitespace().nth(1).unwrap_or_default();
    Ok(number.trim_start_matches('v').to_owned())
}

async fn nft(arguments: &[&str], input: &str) -> Result<String, Error> {
    // Daemons are often started with a PATH that lacks the sbin directories.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("nft")
        .args(arguments)
        // Nothing else of the environment is its business: neither secrets nor the service manager.
        .env_clear()
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(Error::Run)?;
    }
    let output = tokio::time::timeout(NFT_TIMEOUT, child.wait_with_output())
        .await
        .map_err(|_| Error::Run(io::ErrorKind::TimedOut.into()))?
        .map_err(Error::Run)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let first_line = complaint.lines().next().unwrap_or("no reason given");
    Err(Error::Refused(first_line.to_owned()))
}

const NFT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
