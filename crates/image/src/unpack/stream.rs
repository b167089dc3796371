//! The stream between a packed file and the tar reader: decompression, both
//! digests, and every bound that holds while bytes flow.

use std::cell::{Cell, RefCell};
use std::io::{self, BufReader, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::Error;
use crate::limits::Limits;

const BUFFER_BYTES: usize = 128 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Set when nobody waits for the result any more; read on every block.
pub(crate) type Cancel = Arc<AtomicBool>;

/// Shared between the stream (inside the tar reader) and the code around it;
/// both live on one thread.
pub(crate) struct Meter {
    what: String,
    limits: Limits,
    bytes_max: u64,
    cancel: Cancel,
    packed: Tap,
    unpacked: Tap,
    written: Cell<u64>,
    /// Bytes of entry headers since `capture`, when capturing.
    captured: RefCell<Option<Vec<u8>>>,
    /// The reason behind the I/O error that the tar reader passes on.
    tripped: RefCell<Option<Error>>,
}

#[derive(Default)]
struct Tap {
    hash: RefCell<Sha256>,
    bytes: Cell<u64>,
}

impl Tap {
    fn count(&self, bytes: &[u8]) {
        self.hash.borrow_mut().update(bytes);
        self.bytes.set(self.bytes.get() + bytes.len() as u64);
    }

    fn digest(&self) -> Digest {
        Digest::from_hash(self.hash.borrow().clone())
    }
}

impl Meter {
    pub(crate) fn new(what: &str, limits: Limits, bytes_max: u64, cancel: Cancel) -> Rc<Self> {
        Rc::new(Self {
            what: what.to_owned(),
            limits,
            bytes_max,
            cancel,
            packed: Tap::default(),
            unpacked: Tap::default(),
            written: Cell::new(0),
            captured: RefCell::new(None),
            tripped: RefCell::new(None),
        })
    }

    pub(crate) fn packed_digest(&self) -> Digest {
        self.packed.digest()
    }

    pub(crate) fn unpacked_digest(&self) -> Digest {
        self.unpacked.digest()
    }

    pub(crate) fn position(&self) -> u64 {
        self.unpacked.bytes.get()
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Counts bytes going to disk: sparse entries write more than they read.
    pub(crate) fn write(&self, bytes: u64) -> Result<(), Error> {
        self.written.set(self.written.get() + bytes);
        if self.written.get() > self.bytes_max {
            return Err(self.too_large("", self.bytes_max, "bytes"));
        }
        Ok(())
    }

    /// From now on bytes belong to headers: kept, and few.
    pub(crate) fn capture(&self) {
        *self.captured.borrow_mut() = Some(Vec::new());
    }

    pub(crate) fn captured(&self) -> Vec<u8> {
        self.captured.borrow_mut().take().unwrap_or_default()
    }

    /// What stands behind an error of the tar reader at `entry`.
    pub(crate) fn explain(&self, entry: &str, error: io::Error) -> Error {
        if let Some(reason) = self.tripped.borrow_mut().take() {
            return reason;
        }
        Error::MalformedArchive {
            entry: entry.to_owned(),
            reason: format!("{} cannot be read on", self.what),
            source: Some(Arc::new(error)),
        }
    }

    fn trip(&self, error: Error) -> io::Error {
        *self.tripped.borrow_mut() = Some(error);
        io::Error::other("stopped")
    }

    fn too_large(&self, part: &str, limit: u64, unit: &'static str) -> Error {
        Error::TooLarge { what: format!("{part}{}", self.what), limit, unit }
    }

    fn pass(&self, bytes: &[u8]) -> io::Result<()> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(self.trip(Error::Interrupted { action: "unpacking" }));
        }
        self.unpacked.count(bytes);
        let (unpacked, packed) = (self.unpacked.bytes.get(), self.packed.bytes.get());
        if unpacked > self.bytes_max {
            return Err(self.trip(self.too_large("", self.bytes_max, "bytes")));
        }
        let bomb =
            unpacked > self.limits.ratio_free_bytes && unpacked / self.limits.ratio.max(1) > packed;
        if bomb {
            let unit = "times its packed size";
            return Err(self.trip(self.too_large("", self.limits.ratio, unit)));
        }
        if let Some(captured) = self.captured.borrow_mut().as_mut() {
            captured.extend_from_slice(bytes);
            if captured.len() as u64 > self.limits.header_bytes {
                let limit = self.limits.header_bytes;
                return Err(self.trip(self.too_large("an entry's header in ", limit, "bytes")));
            }
        }
        Ok(())
    }
}

/// The unpacked bytes of `packed`, which may be gzip, zstd or plain.
pub(crate) struct Unpacked {
    inner: Decoder,
    meter: Rc<Meter>,
}

enum Decoder {
    Plain(Box<dyn io::BufRead>),
    Gzip(Box<MultiGzDecoder<Box<dyn io::BufRead>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Box<dyn io::BufRead>>>),
}

struct Packed<R> {
    inner: R,
    meter: Rc<Meter>,
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.meter.packed.count(&buf[..n]);
        Ok(n)
    }
}

impl Unpacked {
    pub(crate) fn new<R: Read + 'static>(mut packed: R, meter: &Rc<Meter>) -> io::Result<Self> {
        let mut magic = Vec::with_capacity(ZSTD.len());
        packed.by_ref().take(4).read_to_end(&mut magic)?;
        let kind = magic.clone();
        let inner = Packed { inner: io::Cursor::new(magic).chain(packed), meter: Rc::clone(meter) };
        let inner: Box<dyn io::BufRead> = Box::new(BufReader::with_capacity(BUFFER_BYTES, inner));
        let inner = if kind.starts_with(&GZIP) {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(inner)))
        } else if kind.starts_with(&ZSTD) {
            Decoder::Zstd(Box::new(zstd::stream::read::Decoder::with_buffer(inner)?))
        } else {
            Decoder::Plain(inner)
        };
        Ok(Self { inner, meter: Rc::clone(meter) })
    }

    /// Reads what follows the archive's end, so that digests cover everything.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        let mut rest: &mut dyn Read = match &mut self.inner {
            Decoder::Plain(inner) => inner,
            Decoder::Gzip(inner) => inner.get_mut(),
            Decoder::Zstd(inner) => inner.get_mut(),
        };
        io::copy(&mut rest, &mut io::sink())?;
        Ok(())
    }
}

impl Read for Unpacked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.inner {
            Decoder::Plain(inner) => inner.read(buf)?,
            Decoder::Gzip(inner) => inner.read(buf)?,
            Decoder::Zstd(inner) => inner.read(buf)?,
        };
        self.meter.pass(&buf[..n])?;
        Ok(n)
    }
}
