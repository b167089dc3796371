//! Stands in for `clusterctl` and the daemons in this crate's tests: the hidden lab commands, a
//! server that answers with its host name, and a probe that reads such an answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["lab", name, ..] => {
            let code = cluster_lab::hidden_main(name, &args[2..]).unwrap_or(2);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
        ["serve", address] => finish(serve(address)),
        ["probe", address, millis] => finish(probe(address, millis)),
        _ => ExitCode::from(2),
    }
}

fn finish(outcome: std::io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str) -> std::io::Result<()> {
    let name = nix::unistd::gethostname()?;
    for stream in TcpListener::bind(address)?.incoming().flatten() {
        // The other end may be gone; the next one is served all the same.
        let _ = (&stream).write_all(name.as_encoded_bytes());
    }
    Ok(())
}

fn probe(address: &str, millis: &str) -> std::io::Result<()> {
    let within = Duration::from_millis(millis.parse().map_err(std::io::Error::other)?);
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    println!("{answer}");
    Ok(())
}
