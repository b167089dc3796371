//! Logs: to stderr, as text for people or JSON for programs.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::panics;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{text:?} is not a log format: expected text or json")]
    UnknownFormat { text: String },
    #[error("RUST_LOG={text:?} is not a log filter")]
    BadFilter {
        text: String,
        #[source]
        source: ParseError,
    },
    #[error("starting the log: it was already started")]
    AlreadyStarted,
}

impl FromStr for LogFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Error::UnknownFormat { text: text.chars().take(40).collect() }),
        }
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Starts logging for this process; panics are logged too. RUST_LOG wins over `default_filter`
/// (such as `info`).
pub fn init(format: LogFormat, default_filter: &str) -> Result<(), Error> {
    let text = match std::env::var("RUST_LOG") {
        Ok(text) if !text.trim().is_empty() => text,
        _ => default_filter.to_owned(),
    };
    let filter = EnvFilter::try_new(&text).map_err(|source| Error::BadFilter { text, source })?;
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = subscriber(format, filter, color, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::AlreadyStarted)?;
    panics::log_panics();
    Ok(())
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    color: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(color);
    match format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(format, EnvFilter::new(filter), false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(node_id = "abc", "node joined");
            tracing::debug!("quiet");
        });
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_and_json_carry_the_fields_and_respect_the_filter() {
        let text = logged(LogFormat::Text, "info");
        assert!(text.contains("node joined") && text.contains("node_id=\"abc\""), "{text}");
        assert!(!text.contains("quiet"));
        let json = logged(LogFormat::Json, "info");
        assert!(json.contains(r#""message":"node joined""#), "{json}");
        assert!(json.contains(r#""node_id":"abc""#) && json.lines().count() == 1, "{json}");
        assert!(logged(LogFormat::Text, "debug").contains("quiet"));
        assert_eq!(logged(LogFormat::Text, "error"), "");
    }

    #[test]
    fn formats_by_name() {
        assert_eq!("json".parse::<LogFormat>().unwrap(), LogFormat::Json);
        assert!("xml".parse::<LogFormat>().unwrap_err().to_string().contains("text or json"));
    }
}
