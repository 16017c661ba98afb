//! Who a process is: users, groups, capabilities; credentials(7), capabilities(7).

use alloc::{sync::Arc, vec::Vec};

use crate::{
    ids::Pid,
    session::{Sender, Users},
};

/// Capability numbers that this kernel looks at; `linux/capability.h`.
pub mod cap {
    /// Make arbitrary changes to owners of files.
    pub const CHOWN: u8 = 0;
    /// Bypass file permission checks.
    pub const DAC_OVERRIDE: u8 = 1;
    /// Bypass read permission and search checks.
    pub const DAC_READ_SEARCH: u8 = 2;
    /// Bypass checks that want the file's owner.
    pub const FOWNER: u8 = 3;
    /// Keep set-id bits.
    pub const FSETID: u8 = 4;
    /// Send signals to anybody.
    pub const KILL: u8 = 5;
    /// Change groups.
    pub const SETGID: u8 = 6;
    /// Change users.
    pub const SETUID: u8 = 7;
    /// Change capabilities of others.
    pub const SETPCAP: u8 = 8;
    /// Lock memory.
    pub const IPC_LOCK: u8 = 14;
    /// Look into any process.
    pub const SYS_PTRACE: u8 = 19;
    /// Use any System V object.
    pub const IPC_OWNER: u8 = 15;
    /// Raw I/O.
    pub const SYS_RAWIO: u8 = 17;
    /// chroot(2).
    pub const SYS_CHROOT: u8 = 18;
    /// Administration.
    pub const SYS_ADMIN: u8 = 21;
    /// reboot(2).
    pub const SYS_BOOT: u8 = 22;
    /// Raise priorities.
    pub const SYS_NICE: u8 = 23;
    /// Exceed limits.
    pub const SYS_RESOURCE: u8 = 24;
    /// Set clocks.
    pub const SYS_TIME: u8 = 25;
    /// Terminal administration.
    pub const SYS_TTY_CONFIG: u8 = 26;
    /// Device nodes.
    pub const MKNOD: u8 = 27;
    /// The last one that exists (`CAP_CHECKPOINT_RESTORE`).
    pub const LAST: u8 = 40;
    /// All of them.
    pub const ALL: u64 = (1 << (LAST + 1)) - 1;
}

/// Credentials: a value that is replaced as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Creds {
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Saved user.
    pub suid: u32,
    /// User for files.
    pub fsuid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
    /// Saved group.
    pub sgid: u32,
    /// Group for files.
    pub fsgid: u32,
    /// Supplementary groups, sorted.
    pub groups: Arc<[u32]>,
    /// Effective capabilities.
    pub effective: u64,
    /// Permitted capabilities.
    pub permitted: u64,
    /// Inheritable capabilities.
    pub inheritable: u64,
    /// Ambient capabilities.
    pub ambient: u64,
    /// Bounding set.
    pub bounding: u64,
    /// PR_SET_KEEPCAPS.
    pub keep_caps: bool,
    /// PR_SET_NO_NEW_PRIVS; never cleared.
    pub no_new_privs: bool,
    /// `SECBIT_*`.
    pub secure_bits: u32,
}

impl Creds {
    /// The superuser.
    pub fn root() -> Self {
        Self {
            uid: 0,
            euid: 0,
            suid: 0,
            fsuid: 0,
            gid: 0,
            egid: 0,
            sgid: 0,
            fsgid: 0,
            groups: Vec::new().into(),
            effective: cap::ALL,
            permitted: cap::ALL,
            inheritable: 0,
            ambient: 0,
            bounding: cap::ALL,
            keep_caps: false,
            no_new_privs: false,
            secure_bits: 0,
        }
    }

    /// Whether capability `which` is effective.
    pub const fn can(&self, which: u8) -> bool {
        self.effective & 1 << which != 0
    }

    /// Whether `gid` is the effective group or one of the supplementary ones.
    pub fn in_group(&self, gid: u32) -> bool {
        self.egid == gid || self.groups.contains(&gid)
    }

    /// As the sender of a signal.
    pub const fn sender(&self, pid: Pid, sid: Pid) -> Sender {
        Sender { pid, uid: self.uid, euid: self.euid, privileged: self.can(cap::KILL), sid }
    }

    /// As the target of a signal.
    pub const fn users(&self) -> Users {
        Users { real: self.uid, saved: self.suid }
    }

    /// Sets the users, with what that does to capabilities (capabilities(7), "Effect of user ID changes on capabilities").
    pub fn set_users(&mut self, uid: u32, euid: u32, suid: u32, fsuid: u32) {
        let had_root = self.uid == 0 || self.euid == 0 || self.suid == 0;
        let was_effective_root = self.euid == 0;
        (self.uid, self.euid, self.suid) = (uid, euid, suid);
        self.set_fsuid(fsuid);
        let has_root = uid == 0 || euid == 0 || suid == 0;
        if had_root && !has_root {
            if !self.keep_caps {
                self.permitted = 0;
                self.effective = 0;
            }
            self.ambient = 0;
        }
        if was_effective_root && euid != 0 {
            self.effective = 0;
        }
        if !was_effective_root && euid == 0 {
            self.effective = self.permitted;
        }
    }

    /// Sets the user for files; the file capabilities follow.
    pub fn set_fsuid(&mut self, fsuid: u32) {
        const FILE_CAPS: u64 = 1 << cap::CHOWN
            | 1 << cap::DAC_OVERRIDE
            | 1 << cap::DAC_READ_SEARCH
            | 1 << cap::FOWNER
            | 1 << cap::FSETID
            | 1 << cap::MKNOD;
        if self.fsuid == 0 && fsuid != 0 {
            self.effective &= !FILE_CAPS;
        }
        if self.fsuid != 0 && fsuid == 0 {
            self.effective |= self.permitted & FILE_CAPS;
        }
        self.fsuid = fsuid;
    }

    /// What a program gets at execve(2) from a file with these set-id owners.
    pub fn exec(&mut self, setuid: Option<u32>, setgid: Option<u32>) {
        if !self.no_new_privs {
            if let Some(uid) = setuid {
                self.euid = uid;
            }
            if let Some(gid) = setgid {
                self.egid = gid;
            }
        }
        self.suid = self.euid;
        self.fsuid = self.euid;
        self.sgid = self.egid;
        self.fsgid = self.egid;
        self.keep_caps = false;
        let root_file = if self.uid == 0 || self.euid == 0 { u64::MAX } else { 0 };
        if setuid.is_some() || setgid.is_some() {
            self.ambient = 0;
        }
        self.permitted = (self.inheritable & root_file) | (root_file & self.bounding) | self.ambient;
        self.effective = if self.euid == 0 { self.permitted } else { self.ambient };
    }
}

/// Whether somebody with credentials `mine` may look into a process: ptrace(2), "access mode checking".
pub fn may_trace(mine: &Creds, process: &crate::process::Process) -> bool {
    let theirs = process.creds();
    let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|u| *u == mine.uid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|g| *g == mine.gid);
    let dumpable = process.dumpable.load(core::sync::atomic::Ordering::Relaxed) == 1;
    (same && dumpable) || mine.can(cap::SYS_PTRACE)
}

#[cfg(test)]
mod tests {
    use super::{Creds, cap};

    #[test]
    fn leaving_root_drops_capabilities() {
        let mut c = Creds::root();
        c.set_users(1000, 1000, 1000, 1000);
        assert_eq!((c.permitted, c.effective), (0, 0));
        let mut c = Creds::root();
        c.set_users(0, 1000, 0, 1000);
        assert_eq!((c.permitted, c.effective), (cap::ALL, 0));
        c.set_users(0, 0, 0, 0);
        assert_eq!(c.effective, cap::ALL);
        c.keep_caps = true;
        c.set_users(1000, 1000, 1000, 1000);
        assert_eq!((c.permitted, c.effective), (cap::ALL, 0));
    }

    #[test]
    fn exec_of_a_set_user_file() {
        let mut c = Creds::root();
        c.set_users(1000, 1000, 1000, 1000);
        c.exec(None, None);
        assert!(!c.can(cap::KILL));
        c.exec(Some(0), None);
        assert_eq!((c.uid, c.euid, c.suid), (1000, 0, 0));
        assert!(c.can(cap::KILL));
        c.set_users(1000, 1000, 1000, 1000);
        c.no_new_privs = true;
        c.exec(Some(0), None);
        assert_eq!(c.euid, 1000);
    }
}
