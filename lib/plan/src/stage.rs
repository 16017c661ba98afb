//! How another kernel leaves an image for a board that waits: numbers that the stub (`hal/stub`) has too.

/// From the begin of a kernel's memory to its image.
pub const IMAGE_OFFSET: u64 = 0x20_0000;
/// From there to what was left: a page that says how much it is, then what is copied to the begin: porch, boot block, image. It ends where the stub
/// begins.
pub const STAGE_OFFSET: u64 = 16 << 20;
/// The first word of that page when there is something: "COBSTAGE". The second is the number of bytes.
pub const STAGE_MAGIC: u64 = u64::from_le_bytes(*b"COBSTAGE");
/// And to the stub that copies.
pub const STUB_OFFSET: u64 = 30 << 20;
