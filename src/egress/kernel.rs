//! The calls of the kernel that answer a system call of another process (`seccomp_unotify(2)`). The only unsafe code of the
//! broker: what is read here is judged elsewhere.
#![expect(
    unsafe_code,
    reason = "the notification interface is an ioctl with structures whose sizes the kernel names"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// Which one.
    pub id: u64,
    /// The thread that called, by its number here.
    pub thread: u32,
    /// The number of the call.
    pub call: i64,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Its arguments.
    pub args: [u64; 6],
}

/// How large the kernel's structures are; never smaller than ours.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    notification: usize,
    response: usize,
}

impl Sizes {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it has no notifications.
    pub fn ask() -> io::Result<Self> {
        let mut sizes = libc::seccomp_notif_sizes {
            seccomp_notif: 0,
            seccomp_notif_resp: 0,
            seccomp_data: 0,
        };
        // SAFETY: the kernel writes one `seccomp_notif_sizes` through the pointer, which is to a live one of ours.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_NOTIF_SIZES,
                0,
                std::ptr::from_mut(&mut sizes),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            notification: usize::from(sizes.seccomp_notif).max(size_of::<libc::seccomp_notif>()),
            response: usize::from(sizes.seccomp_notif_resp).max(size_of::<libc::seccomp_notif_resp>()),
        })
    }
}

/// Has the listener watched for calls.
///
/// # Errors
/// When it can't be.
pub fn watch(listener: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open and the same for as long as it is in there.
    let watched = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

/// Zeroed memory of at least so many bytes, aligned for every structure of the interface.
fn space(bytes: usize) -> Vec<u64> {
    vec![0; bytes.div_ceil(size_of::<u64>())]
}

fn call(listener: BorrowedFd<'_>, request: libc::Ioctl, argument: *mut libc::c_void) -> io::Result<i32> {
    // SAFETY: every caller passes a request of the seccomp listener together with a pointer to live memory that is at least
    // as large as the kernel says the structure of that request is; on another kind of descriptor the request is unknown.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), request, argument) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Takes the next call. Must only be asked when the listener is readable, or it waits.
///
/// # Errors
/// `NotFound` when the caller was killed in between; else what the kernel says.
pub fn receive(listener: BorrowedFd<'_>, sizes: Sizes) -> io::Result<Notification> {
    let mut space = space(sizes.notification);
    call(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, space.as_mut_ptr().cast())?;
    // SAFETY: the memory is at least as large as the structure, aligned for it, initialised, and any bytes are a valid one.
    let received = unsafe { space.as_ptr().cast::<libc::seccomp_notif>().read() };
    Ok(Notification {
        id: received.id,
        thread: received.pid,
        call: received.data.nr.into(),
        arch: received.data.arch,
        args: received.data.args,
    })
}

/// Whether the call still waits. What was read of its process before is of that process if it does.
pub fn is_waiting(listener: BorrowedFd<'_>, mut id: u64) -> bool {
    call(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
        std::ptr::from_mut(&mut id).cast(),
    )
    .is_ok()
}

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// With 0.
    Done,
    /// With this error.
    Error(rustix::io::Errno),
    /// It is carried out as it stands in the caller's memory by then, which another thread may have changed.
    Continue,
}

/// Answers a call.
///
/// # Errors
/// `NotFound` when nobody waits any more.
pub fn answer(listener: BorrowedFd<'_>, sizes: Sizes, id: u64, answer: Answer) -> io::Result<()> {
    let mut space = space(sizes.response);
    let response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: match answer {
            Answer::Error(error) => -error.raw_os_error(),
            Answer::Done | Answer::Continue => 0,
        },
        flags: match answer {
            #[expect(clippy::cast_possible_truncation, reason = "a flag of one bit")]
            Answer::Continue => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Answer::Done | Answer::Error(_) => 0,
        },
    };
    // SAFETY: the memory is at least as large as the structure and aligned for it.
    unsafe { space.as_mut_ptr().cast::<libc::seccomp_notif_resp>().write(response) };
    call(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, space.as_mut_ptr().cast()).map(drop)
}

/// Puts a descriptor of ours in the place of one of the caller's.
///
/// # Errors
/// What the kernel says: the number is out of the caller's bounds, or the caller is gone.
pub fn replace(
    listener: BorrowedFd<'_>,
    id: u64,
    ours: BorrowedFd<'_>,
    theirs: u32,
    close_on_exec: bool,
) -> io::Result<()> {
    let refused = || io::Error::from_raw_os_error(libc::EBADF);
    let mut request = libc::seccomp_notif_addfd {
        id,
        #[expect(clippy::cast_possible_truncation, reason = "a flag of one bit")]
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: u32::try_from(ours.as_raw_fd()).map_err(|_| refused())?,
        newfd: theirs,
        newfd_flags: if close_on_exec {
            libc::O_CLOEXEC.cast_unsigned()
        } else {
            0
        },
    };
    call(
        listener,
        libc::SECCOMP_IOCTL_NOTIF_ADDFD,
        std::ptr::from_mut(&mut request).cast(),
    )
    .map(drop)
}
