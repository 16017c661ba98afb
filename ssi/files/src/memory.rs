//! The content of another kernel's file, for mapping it privately and executing it: pages are fetched when they are touched.

use alloc::sync::{Arc, Weak};
use core::ops::Range;

use base::{
    Errno, Error, ObjectId, Result, TryResult,
    io::{Sink, Source},
    wait::Try,
};
use hal::{addr::PAGE_SIZE, usermode::Access};
use mm::{MappedPage, Mapper, MemoryObject, ObjectKind, PageCache, PageSource, SourcePage};
use wire::files::{PageGet, PageIs};

use crate::{remote::RemoteFile, service::FileService};

/// A private view of a remote file as it is when it is mapped.
pub struct RemoteMemory {
    cache: Arc<PageCache>,
}

struct Pages {
    service: Arc<FileService>,
    /// Kept: its reference is what the pages are asked under.
    file: Arc<RemoteFile>,
}

impl PageSource for Pages {
    fn page(&self, index: u64) -> TryResult<SourcePage> {
        let memory = self.service.memory.clone();
        self.service.ask(self.file.object(), &PageGet { index }, &[], move |answer| {
            let (page, bytes) = answer.read::<PageIs>()?;
            if index >= page.size.div_ceil(PAGE_SIZE as u64) {
                return Err(link::Error::new(Errno::EFAULT, "beyond the end of the file", answer.from));
            }
            if bytes.is_empty() {
                return Ok(Try::Done(SourcePage::Hole));
            }
            let none = |_| link::Error::new(Errno::ENOMEM, "no frame for the page", answer.from);
            let frame = memory.frame(true).map_err(none)?;
            frame.write(0, bytes.get(..PAGE_SIZE).unwrap_or(bytes));
            Ok(Try::Done(SourcePage::Filled(frame)))
        })
    }
}

impl RemoteMemory {
    /// The content of `file`. Only its home knows its size: every page that is asked for says whether it is still there.
    pub(crate) fn make(service: &Arc<FileService>, file: Arc<RemoteFile>) -> Arc<Self> {
        let source = Arc::new(Pages { service: service.clone(), file });
        Arc::new(Self { cache: PageCache::of_source(&service.memory, source, mm::cache::SIZE_MAX) })
    }
}

impl MemoryObject for RemoteMemory {
    fn id(&self) -> ObjectId {
        self.cache.id()
    }

    fn kind(&self) -> ObjectKind {
        self.cache.kind()
    }

    fn size(&self) -> u64 {
        self.cache.size()
    }

    fn page(&self, index: u64, access: Access) -> TryResult<MappedPage> {
        if access == Access::Write {
            return Err(Error::new(Errno::EPERM, "another kernel's file cannot be written through memory"));
        }
        self.cache.page(index, access)
    }

    fn resident(&self, range: Range<u64>, each: &mut dyn FnMut(u64, MappedPage) -> bool) {
        self.cache.resident(range, each);
    }

    fn read(&self, offset: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        self.cache.read(offset, sink)
    }

    fn write(&self, _offset: u64, _source: &mut dyn Source) -> TryResult<usize> {
        Err(Errno::EPERM.into())
    }

    fn resize(&self, _size: u64) -> TryResult<()> {
        Err(Errno::EPERM.into())
    }

    fn held(&self) -> u64 {
        self.cache.held()
    }

    fn attach(&self, mapper: &Weak<dyn Mapper>, shared_writable: bool) -> Result<usize> {
        if shared_writable {
            // That is what `OpenFile::share` is for; here stores would be lost.
            return Err(Error::new(Errno::ENODEV, "a private view of another kernel's file"));
        }
        self.cache.attach(mapper, false)
    }

    fn detach(&self, token: usize) {
        self.cache.detach(token);
    }
}
