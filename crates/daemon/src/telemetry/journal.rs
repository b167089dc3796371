//! Events in systemd's journal: the message with its fields as text, for people, and each field once more
//! as a field of the journal, so that `journalctl CLUSTER_TASK_ID=…` finds what happened to a task.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// In front of our fields, so that none is taken for one of the journal's own.
const PREFIX: &str = "CLUSTER_";
/// The journal's own bound on the names of fields.
const NAME_MAX: usize = 64;
/// One datagram takes more; longer values are cut.
const VALUE_MAX: usize = 32 << 10;

pub(super) struct Journal {
    socket: UnixDatagram,
    /// The program, as `journalctl -t` knows it.
    identifier: String,
}

impl Journal {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        let program = std::env::args_os().next().unwrap_or_default();
        let program = Path::new(&program).file_name().unwrap_or_default();
        Ok(Self { socket, identifier: program.to_string_lossy().into_owned() })
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // What it happened in says on what.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.text.push_str(&of_span.text);
                fields.encoded.extend_from_slice(&of_span.encoded);
            }
        }
        let metadata = event.metadata();
        let mut entry = Vec::with_capacity(512);
        put(&mut entry, "MESSAGE", &format!("{}{}", fields.message, fields.text));
        put(&mut entry, "PRIORITY", priority(*metadata.level()));
        put(&mut entry, "SYSLOG_IDENTIFIER", &self.identifier);
        put(&mut entry, "CLUSTER_TARGET", metadata.target());
        entry.extend(fields.encoded);
        if let Err(error) = self.socket.send(&entry) {
            // Nothing is left to tell it to, if this fails too.
            let _ = writeln!(io::stderr(), "{}{} (journal: {error})", fields.message, fields.text);
        }
    }
}

/// As syslog counts.
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    /// ` name=value` of all others.
    text: String,
    encoded: Vec<u8>,
}

impl Fields {
    fn add(&mut self, field: &Field, shown: &str, value: &str) {
        let _ = write!(self.text, " {}={shown}", field.name());
        let name = field.name().chars().map(|c| match c.to_ascii_uppercase() {
            c @ ('A'..='Z' | '0'..='9') => c,
            _ => '_',
        });
        let name: String = PREFIX.chars().chain(name).take(NAME_MAX).collect();
        put(&mut self.encoded, &name, value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.add(field, &format!("{value:?}"), value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn StdError + 'static)) {
        let chain = crate::chain(value);
        self.add(field, &chain, &chain);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.message = value,
            _ => self.add(field, &value, &value),
        }
    }
}

/// One field in the journal's form. A value of several lines goes with its length.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let mut ends = (0..=VALUE_MAX.min(value.len())).rev();
    let end = ends.find(|end| value.is_char_boundary(*end)).unwrap_or_default();
    let value = &value[..end];
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("writing the log")]
    struct Outer(#[source] io::Error);

    /// What journald would get.
    fn sent(tell: impl FnOnce()) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journald = UnixDatagram::bind(&path).unwrap();
        journald.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, tell);
        let mut bytes = vec![0; 1 << 20];
        let count = journald.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn an_event_is_text_for_people_and_fields_for_searching() {
        let error = Outer(io::Error::other("disk full"));
        let error = &error as &dyn StdError;
        let entry = sent(|| tracing::warn!(task_id = "t1", slot = 3, error, "task failed"));
        let lines: Vec<&str> = entry.lines().collect();
        for line in [
            "MESSAGE=task failed task_id=\"t1\" slot=3 error=writing the log: disk full",
            "PRIORITY=4",
            "CLUSTER_TARGET=cluster_daemon::telemetry::journal::tests",
            "CLUSTER_TASK_ID=t1",
            "CLUSTER_SLOT=3",
            "CLUSTER_ERROR=writing the log: disk full",
        ] {
            assert!(lines.contains(&line), "{line}: {entry}");
        }
        assert!(lines.iter().any(|line| line.starts_with("SYSLOG_IDENTIFIER=cluster_daemon")));
    }

    #[test]
    fn an_event_has_the_fields_of_what_it_happened_in() {
        let entry = sent(|| {
            let span = tracing::info_span!("task", task_id = "t2");
            span.in_scope(|| tracing::info!(attempt = 1, "started"));
        });
        assert!(entry.starts_with("MESSAGE=started attempt=1 task_id=\"t2\"\n"), "{entry}");
        assert!(entry.contains("\nCLUSTER_TASK_ID=t2\n"), "{entry}");
    }

    #[test]
    fn several_lines_go_with_their_length_and_what_is_long_is_cut() {
        let entry = sent(|| tracing::info!(reason = "a\nb", "two"));
        assert!(entry.contains("CLUSTER_REASON\n\x03\0\0\0\0\0\0\0a\nb\n"), "{entry:?}");
        // Shown on one line.
        assert!(entry.starts_with("MESSAGE=two reason=\"a\\nb\"\n"), "{entry:?}");
        let long = "ä".repeat(VALUE_MAX);
        let entry = sent(|| tracing::info!(long, "three"));
        assert!(entry.len() < 3 * VALUE_MAX, "{}", entry.len());
    }
}
