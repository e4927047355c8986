//! How much of what strangers send is taken: every size, count and depth in an archive has its limit here.
//!
//! The limits of single documents (manifest, configuration, index) are beside their types in `oci::image`.

/// Entries of one tar archive.
pub const ENTRIES_MAX: u64 = 16 << 20;
/// Bytes of a path or link target in an archive, as in the kernel (PATH_MAX with its NUL).
pub const PATH_BYTES_MAX: usize = 4095;
/// Bytes of one PAX extended header: names, times and extended attributes of one entry.
pub const PAX_BYTES_MAX: u64 = 1 << 20;
/// Data regions of one sparse file.
pub const SPARSE_REGIONS_MAX: usize = 1 << 20;
/// Times the compressed size that a stream may unpack to, once it is larger than [`EXPANSION_FREE_BYTES`]. Gzip reaches
/// 1032 with zeros.
pub const EXPANSION_RATIO_MAX: u64 = 2048;
/// Unpacked bytes below which the ratio does not matter.
pub const EXPANSION_FREE_BYTES: u64 = 1 << 30;
/// Bytes of window that a zstd frame may ask for, as a power of two (the zstd command's own default).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// KiB of memory that an xz stream may ask for: `xz -9` needs 65 MiB.
pub const XZ_MEMORY_KIB_MAX: u32 = 160 << 10;
/// Bytes of JSON documents (configurations, manifests, indexes) that one archive may hold in memory.
pub const DOCUMENTS_BYTES_MAX: u64 = 256 << 20;
/// Layers that one archive may hold, of all its images.
pub const ARCHIVE_LAYERS_MAX: usize = 4096;
/// Directories on the way to a file that is walked (diff, commit, export); each is a descriptor.
pub const DEPTH_MAX: usize = 500;
/// Bytes of an identifier of a snapshot.
pub const SNAPSHOT_ID_BYTES_MAX: usize = 128;
