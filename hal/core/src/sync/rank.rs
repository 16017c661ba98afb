//! The order of locks, in one table: a CPU may take a lock only if its rank is higher than all it holds.
//!
//! Gaps are for new rooms. A new lock gets a line here, with what it protects; two locks of one rank are taken together only with
//! [`SpinLock::lock_both`](super::SpinLock::lock_both).

/// A place in the order of locks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    order: u16,
    name: &'static str,
}

impl Rank {
    /// A rank. Only this file makes those that kernels use; tests may make their own.
    pub const fn new(order: u16, name: &'static str) -> Self {
        Self { order, name }
    }
    /// The place in the order.
    pub const fn order(self) -> u16 {
        self.order
    }
    /// The name for people.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl core::fmt::Debug for Rank {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({})", self.name, self.order)
    }
}

macro_rules! ranks {
    ($($(#[$doc:meta])* $name:ident = $order:literal;)*) => {
        $($(#[$doc])* pub const $name: Rank = Rank::new($order, stringify!($name));)*
        #[cfg(test)]
        pub(super) const ALL: &[Rank] = &[$($name),*];
    };
}

ranks! {
    /// The boot registries: services, drivers, file-system types.
    REGISTRY = 50;
    /// All processes of a kernel.
    PROCESS_TABLE = 100;
    /// Sessions and process groups.
    SESSION = 110;
    /// One process: threads, children, signals shared by threads.
    PROCESS = 120;
    /// One task's own signals and timers.
    TASK = 130;
    /// Credentials, limits, cwd of a process.
    PROCESS_FS = 140;
    /// A descriptor table.
    FILES = 200;
    /// One open file: offset and flags.
    OPEN_FILE = 210;
    /// The mount table.
    MOUNTS = 300;
    /// The directory cache.
    DENTRIES = 310;
    /// A directory.
    DIRECTORY = 320;
    /// A file or other inode.
    INODE = 330;
    /// The names in a directory (and what `/proc` knows of one).
    INODE_NAMES = 335;
    /// The pages of a memory object.
    PAGES = 420;
    /// An address space's list of mappings.
    MAPPINGS = 400;
    /// A terminal.
    TTY = 500;
    /// A pipe.
    PIPE = 510;
    /// A socket.
    SOCKET = 520;
    /// An epoll instance.
    EPOLL = 530;
    /// eventfd, timerfd, signalfd.
    EVENT = 540;
    /// A futex bucket.
    FUTEX = 550;
    /// A service's state (leaf among services; actions run after it is dropped).
    SERVICE = 600;
    /// A device driver.
    DRIVER = 610;
    /// The links of a kernel: peers and handlers.
    LINK = 620;
    /// The requests that wait for an answer.
    LINK_REQUESTS = 621;
    /// What waits for room at a sender.
    LINK_QUEUE = 622;
    /// A link's rings.
    LINK_RINGS = 623;
    /// Windows over peers' memory.
    LINK_WINDOWS = 624;
    /// A request to a peer that somebody waits for.
    CALL = 645;
    /// A list of subscribers.
    WAITERS = 650;
    /// What may be ready in an epoll instance; taken where a list of subscribers is being woken.
    READY_LIST = 652;
    /// The subscribers of an epoll instance.
    EPOLL_WAITERS = 655;
    /// A run queue.
    RUN_QUEUE = 700;
    /// The kernel thread of a task.
    WORKER = 705;
    /// The timer queue of a CPU.
    TIMERS = 710;
    /// A user page table.
    PAGE_TABLE = 800;
    /// Kernel virtual addresses: stacks, windows.
    KERNEL_SPACE = 810;
    /// The frame allocator.
    FRAMES = 900;
    /// The kernel heap.
    HEAP = 910;
    /// The log.
    LOG = 990;
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranks_are_distinct() {
        let mut orders: alloc::vec::Vec<u16> = super::ALL.iter().map(|r| r.order()).collect();
        orders.sort_unstable();
        orders.dedup();
        assert_eq!(orders.len(), super::ALL.len());
    }
}
