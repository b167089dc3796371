//! Bounds on everything that comes from outside; one value per store.

/// What one image may cost. The defaults are far above any sane image and far
/// below what would hurt a node.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Files, directories and links in one layer.
    pub layer_entries: u64,
    /// Unpacked bytes of one layer.
    pub layer_bytes: u64,
    /// Unpacked bytes per packed byte, once `ratio_free_bytes` are exceeded.
    pub ratio: u64,
    pub ratio_free_bytes: u64,
    /// Layers in one image.
    pub layers: usize,
    /// A manifest, an index or a configuration.
    pub document_bytes: u64,
    /// Headers (long names, extended attributes) of one archive entry.
    pub header_bytes: u64,
    /// Members of an imported archive, and their bytes together.
    pub archive_entries: u64,
    pub archive_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_entries: 2_000_000,
            layer_bytes: 64 << 30,
            ratio: 400,
            ratio_free_bytes: 512 << 20,
            layers: 256,
            document_bytes: 8 << 20,
            header_bytes: 4 << 20,
            archive_entries: 4096,
            archive_bytes: 64 << 30,
        }
    }
}
