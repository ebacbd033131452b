//! A worker's process as this side sees it: numbers in messages are those of the zygote's process namespace.

use std::os::fd::{AsRawFd as _, OwnedFd};

/// The process.
#[derive(Debug)]
pub struct Process {
    fd: Option<OwnedFd>,
    /// Its number here, where it is known.
    pub pid: Option<u32>,
}

impl Process {
    /// From what came with `forked`: a descriptor of the process where the kernel has such, and its number as the zygote
    /// sees it, which is `ours` when both are in one process namespace.
    #[must_use]
    pub fn new(fd: Option<OwnedFd>, ours: Option<u32>) -> Self {
        let pid = fd
            .as_ref()
            .and_then(number_of)
            .or(if fd.is_none() { ours } else { None });
        Self { fd, pid }
    }

    /// Kills it at once, whoever sleeps in between. What it has started is the zygote's to end, or its namespace's.
    pub fn kill(&self) {
        #[cfg(target_os = "linux")]
        if let Some(fd) = &self.fd {
            // One that has ended needs no killing.
            let _ = rustix::process::pidfd_send_signal(fd, rustix::process::Signal::KILL);
        }
    }
}

/// `Pid:` of the descriptor's page; -1 for a process that is gone, 0 for one that can't be seen from here.
fn number_of(fd: &OwnedFd) -> Option<u32> {
    let page = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let number = page.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    number.trim().parse().ok().filter(|pid| *pid > 0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_says_whose_it_is() {
        let pid = std::process::id();
        let own = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let fd = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).unwrap();
        // What the zygote says counts only where nothing better is known.
        assert_eq!(Process::new(Some(fd), Some(1)).pid, Some(pid));
        assert_eq!(Process::new(None, Some(7)).pid, Some(7));
        let no_process = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert_eq!(Process::new(Some(no_process), Some(7)).pid, None);
    }
}
