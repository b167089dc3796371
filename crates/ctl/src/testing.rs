//! Fixtures of this crate's tests.

pub mod fake;

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use cluster_identity::{Ca, Context, Identity, Role, Subject, now_unix};

use crate::Cli;
use crate::output::Printer;

/// A writer whose text can be read afterwards.
#[derive(Clone, Default)]
pub struct Captured(Rc<RefCell<Vec<u8>>>);

impl Captured {
    /// A printer with what it writes to stdout and stderr.
    pub fn printer(terminal: bool) -> (Printer, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let printer = Printer::to(Box::new(out.clone()), Box::new(err.clone()), terminal);
        (printer, out, err)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The CA of a cluster.
pub fn ca(cluster_id: &str) -> Ca {
    Ca::create(cluster_id, now_unix()).unwrap()
}

pub fn member(ca: &Ca, role: Role, node_id: &str) -> Identity {
    let subject = Subject { role, node_id: node_id.into(), cluster_id: ca.cluster_id().into() };
    ca.issue(&subject, now_unix(), Duration::from_secs(3600)).unwrap()
}

/// An admin's context.
pub fn context(ca: &Ca, name: &str, managers: Vec<String>) -> Context {
    Context::new(name, managers, &member(ca, Role::Admin, "admin1")).unwrap()
}

/// What a whole command line did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `clusterctl` with these words against a context, on this thread.
pub fn clusterctl(context: &Context, words: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("context.json");
    context.save(&file).unwrap();
    let file = file.to_string_lossy().into_owned();
    let line = ["clusterctl", "--context-file", &file].into_iter().chain(words.iter().copied());
    let (printer, out, err) = Captured::printer(false);
    let code = crate::run(Cli::parse_words(line).unwrap(), printer);
    Ran { code, out: out.text(), err: err.text() }
}
