//! What one kernel asks another for `/proc`.

use alloc::vec::Vec;

use base::{Errno, Error, TryResult};
use objects::codec::{Body, Coded, Reader, Short, Writer};
use proc::process::{ProcessFile, ProcessLink};
use procfs::ProcessView;
use task::ids::Pid;
use vfs::Caller;

use crate::codec::Tasks;

/// Of what `/proc/PID` consists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// User and group, 4 bytes each.
    Owner,
    /// The numbers of the threads, 4 bytes each.
    Threads,
    /// The numbers of the descriptors, 4 bytes each.
    Descriptors,
    /// The text of a file, of the process or of a thread.
    Text(ProcessFile),
    /// The text of `fdinfo/N`.
    DescriptorInfo(u32),
    /// Where a link leads, as text.
    Link(ProcessLink),
    /// No question but a setting; the answer is empty.
    Set(ProcessFile),
}

/// A question about a process, and who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// What is asked.
    pub what: What,
    /// The thread, or the process itself.
    pub tid: u32,
    /// What is written, for [`What::Set`].
    pub text: Vec<u8>,
    /// User of the asking process.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its effective capabilities.
    pub capabilities: u64,
    /// Its number.
    pub asker: u32,
}

impl Question {
    /// The longest text of a setting in bytes.
    const TEXT_MAX: usize = 256;

    /// What `caller` asks of thread `tid`.
    pub const fn new(caller: &Caller, tid: u32, what: What) -> Self {
        let (uid, gid, capabilities) = (caller.uid, caller.gid, caller.capabilities);
        Self { what, tid, text: Vec::new(), uid, gid, capabilities, asker: caller.pid }
    }

    /// What `caller` sets.
    ///
    /// # Errors
    /// `EINVAL` if the text is longer than any setting.
    pub fn set(caller: &Caller, pid: u32, what: ProcessFile, text: &str) -> base::Result<Self> {
        if text.len() > Self::TEXT_MAX {
            return Err(Error::new(Errno::EINVAL, "too long for a setting"));
        }
        Ok(Self { text: text.as_bytes().into(), ..Self::new(caller, pid, What::Set(what)) })
    }

    /// Answers it from the processes of `view`.
    ///
    /// # Errors
    /// Those of [`ProcessView`].
    pub fn ask(&self, view: &dyn ProcessView, pid: Pid) -> TryResult<Vec<u8>> {
        let pid = pid.0;
        let caller = &Caller {
            uid: self.uid,
            gid: self.gid,
            capabilities: self.capabilities,
            pid: self.asker,
            ..Caller::kernel()
        };
        match self.what {
            What::Owner => Ok(view.owner(pid)?.map(|owner| bytes(&[owner.uid, owner.gid]))),
            What::Threads => Ok(view.threads(pid)?.map(|list| bytes(&list))),
            What::Descriptors => Ok(view.descriptors(caller, pid)?.map(|list| bytes(&list))),
            What::Text(file) => view.text(caller, pid, self.tid, file),
            What::DescriptorInfo(fd) => view.descriptor_info(caller, pid, fd),
            What::Link(which) => view.link(caller, pid, which),
            What::Set(file) => {
                let text = core::str::from_utf8(&self.text).map_err(|_| Errno::EINVAL)?;
                Ok(view.set(caller, pid, file, text)?.map(|()| Vec::new()))
            }
        }
    }
}

/// Numbers as the bytes of an answer.
fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// The numbers of an answer; what is no whole number at the end is left out.
pub(crate) fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect()
}

impl What {
    /// Its number on the wire, and the number of the file or descriptor.
    const fn numbers(self) -> (u8, u32) {
        match self {
            Self::Owner => (0, 0),
            Self::Threads => (1, 0),
            Self::Descriptors => (2, 0),
            Self::Text(file) => (3, file as u32),
            Self::DescriptorInfo(fd) => (4, fd),
            Self::Link(ProcessLink::Cwd) => (5, 0),
            Self::Link(ProcessLink::Exe) => (6, 0),
            Self::Link(ProcessLink::Root) => (7, 0),
            Self::Link(ProcessLink::Fd(fd)) => (8, fd),
            Self::Set(file) => (9, file as u32),
        }
    }

    fn from_numbers(what: u8, number: u32) -> Option<Self> {
        let file = || u8::try_from(number).ok().and_then(ProcessFile::from_number);
        Some(match what {
            0 => Self::Owner,
            1 => Self::Threads,
            2 => Self::Descriptors,
            3 => Self::Text(file()?),
            4 => Self::DescriptorInfo(number),
            5 => Self::Link(ProcessLink::Cwd),
            6 => Self::Link(ProcessLink::Exe),
            7 => Self::Link(ProcessLink::Root),
            8 => Self::Link(ProcessLink::Fd(number)),
            9 => Self::Set(file()?),
            _ => return None,
        })
    }
}

impl Body<Tasks> for Question {
    fn put(&self, to: &mut Writer) {
        to.record(|to| {
            let (what, number) = self.what.numbers();
            what.put(to);
            number.put(to);
            self.tid.put(to);
            self.text.put(to);
            self.uid.put(to);
            self.gid.put(to);
            self.capabilities.put(to);
            self.asker.put(to);
        });
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        let mut record = from.record()?;
        let from = &mut record;
        Ok(Self {
            what: What::from_numbers(u8::get(from)?, u32::get(from)?).ok_or(Short)?,
            tid: Coded::get(from)?,
            text: Coded::get(from)?,
            uid: Coded::get(from)?,
            gid: Coded::get(from)?,
            capabilities: Coded::get(from)?,
            asker: Coded::get(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proc::process::{ProcessFile, ProcessLink};
    use vfs::Caller;

    use super::{Question, What, bytes, numbers};
    use crate::codec::{decode, encode};

    #[test]
    fn questions_come_over_as_they_were() {
        let files = ProcessFile::ALL.iter().map(|(_, file, _)| What::Text(*file));
        let links = [ProcessLink::Cwd, ProcessLink::Exe, ProcessLink::Root, ProcessLink::Fd(7)].map(What::Link);
        let others = [What::Owner, What::Threads, What::Descriptors, What::DescriptorInfo(3)];
        for what in files.chain(links).chain(others).chain([What::Set(ProcessFile::Placement)]) {
            let question = Question { text: b"1".to_vec(), ..Question::new(&Caller::kernel(), 9, what) };
            assert_eq!(decode(&encode(&question)), Ok(question));
        }
        assert_eq!(What::from_numbers(99, 0), None);
    }

    #[test]
    fn the_longest_setting_fits_into_a_message() {
        use wire::Message as _;
        let set = |n| Question::set(&Caller::kernel(), 1, ProcessFile::Comm, &"x".repeat(n));
        let longest = set(Question::TEXT_MAX).unwrap();
        assert!(encode(&longest).len() <= wire::tasks::LookAtProcess::SPEC.payload);
        assert!(set(Question::TEXT_MAX + 1).is_err());
    }

    #[test]
    fn numbers_come_over_as_they_were() {
        let list = vec![0, 1, 70_000, u32::MAX];
        assert_eq!(numbers(&bytes(&list)), list);
        assert!(numbers(&[1, 2, 3]).is_empty());
    }
}
