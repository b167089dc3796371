//! Logs: to stderr, as text for people or JSON for programs, or to the journal of systemd.

mod journal;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::str::FromStr;

use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use self::journal::{Journal, SOCKET};
use crate::panics;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
    Journal,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{text:?} is not a log format: expected text, json or journal")]
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
            "journal" => Ok(Self::Journal),
            _ => Err(Error::UnknownFormat { text: text.chars().take(40).collect() }),
        }
    }
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Journal => "journal",
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
    let journal = (format == LogFormat::Journal).then(|| Journal::connect(Path::new(SOCKET)));
    let subscriber = match journal {
        Some(Ok(journal)) => Box::new(tracing_subscriber::registry().with(filter).with(journal)),
        // Without a journal, whoever collects stderr may know levels too.
        _ => subscriber(format, filter, color, std::io::stderr),
    };
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
        LogFormat::Journal => Box::new(
            builder.map_writer(Leveled).with_ansi(false).with_level(false).without_time().finish(),
        ),
    }
}

/// Puts the level in front of each line as systemd reads it: `<4>` is a warning.
struct Leveled<M>(M);

struct LeveledLine<W> {
    writer: W,
    level: &'static str,
}

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for Leveled<M> {
    type Writer = LeveledLine<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        LeveledLine { writer: self.0.make_writer(), level: "6" }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> Self::Writer {
        let level = journal::priority(*metadata.level());
        LeveledLine { writer: self.0.make_writer_for(metadata), level }
    }
}

impl<W: Write> Write for LeveledLine<W> {
    /// An event comes in one piece, and its lines may be several.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut event = Vec::with_capacity(bytes.len() + 16);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let _ = write!(event, "<{}>", self.level);
            event.extend_from_slice(line);
        }
        self.writer.write_all(&event)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
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
    fn the_journal_learns_the_level_and_has_its_own_time() {
        let lines = logged(LogFormat::Journal, "debug");
        let lines: Vec<&str> = lines.lines().collect();
        let here = "cluster_daemon::telemetry::tests";
        assert_eq!(lines[0], format!("<6>{here}: node joined node_id=\"abc\""));
        assert_eq!(lines[1], format!("<7>{here}: quiet"));
    }

    #[test]
    fn formats_by_name() {
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Journal] {
            assert_eq!(format.to_string().parse::<LogFormat>().unwrap(), format);
        }
        assert!(
            "xml".parse::<LogFormat>().unwrap_err().to_string().contains("text, json or journal")
        );
    }
}
