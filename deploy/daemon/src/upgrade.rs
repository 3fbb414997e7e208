//! A new process takes over from a running one, and no connection is refused or cut in between.
//!
//! ```text
//!   the running process                                       the new one: the same command line, so a new binary,
//!     SIGUSR2                                                 a new config, or both
//!     hooks: Stage::Lend ------ spawn, a socket as stdin -----> config, ...
//!                        ------ "sockets" + descriptors ------> inherited (crate::sockets)
//!                        ------ "end" ------------------------> start: listens at the same sockets
//!     both accept        <----- "ready" ----------------------- serves
//!     Drain::hand_over: accepts no more, ends its connections   Drain::alone waits for
//!     exit               ------ the socket closes ------------> the old one's end
//!
//!     goes on as before  <----- "failed REASON", or it ends, or nothing for a minute
//!       hooks: Stage::TakeBack
//! ```
//!
//! # Invariants
//!
//! - The listening sockets are the same all the time, and somebody accepts from them all the time: a connection that is
//!   in their queues when the old process stops is accepted by the new one.
//! - The old process goes on until the new one says that it serves. Whatever keeps it from that (a binary that does not
//!   run, a config that does not check, a port that is taken) is logged by both, and nothing else has changed.
//! - What only one process may write is lent with [`Stage::Lend`], before the new one exists, and taken back when it failed.
//!
//! Under systemd (`Type=notify`) the old process names the new one as the main process (`MAINPID=`, sd_notify(3)) when it
//! serves; the unit needs nothing but `ExecReload=kill -USR2 $MAINPID`.
//!
//! Why not the crate ecdysis (1.1, of Cloudflare): the same idea, tried with 50,660 connects and no error; but it wants to open
//! the listeners itself, with one socket an address, has no word for state that one process writes, and depends on
//! `bincode` 1, which nobody maintains (RUSTSEC-2025-0141). What is needed of it is this file. Why a socket as stdin
//! and `SCM_RIGHTS` rather than inherited descriptors by number: those cannot be taken without `unsafe`.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

/// What happens to what only one process may write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// A new process is about to start, and to take it: stop writing.
    Lend,
    /// It failed: go on.
    TakeBack,
}

/// In the running process: the one that is to come.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    /// Its end, when this process ends, is what the new one waits for.
    channel: OwnedFd,
}

impl Successor {
    /// Starts this process's command line anew and gives it the sockets.
    ///
    /// # Errors
    ///
    /// A program that cannot be started.
    pub fn start(sockets: &[TcpListener]) -> io::Result<Self> {
        let mut arguments = std::env::args_os();
        let program = arguments.next().ok_or_else(|| io::Error::other("this process does not know its own name"))?;
        Self::spawn(program, arguments, sockets)
    }

    fn spawn(
        program: OsString,
        arguments: impl Iterator<Item = OsString>,
        sockets: &[TcpListener],
    ) -> io::Result<Self> {
        let (channel, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&channel, Timeout::Send, Some(ANSWER_LIMIT))?;
        set_socket_timeout(&channel, Timeout::Recv, Some(READY_LIMIT))?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", program.display()));
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::from(theirs)).env(PREDECESSOR, std::process::id().to_string());
        // Sockets of systemd are among those that are sent.
        command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID");
        let child = command.spawn().map_err(named)?;
        // The command holds their end: as long as it does, theirs never looks closed.
        drop(command);
        let successor = Self { child, channel };
        match successor.send(sockets) {
            // It may have ended before it took them: what it says of that is read next.
            Ok(()) | Err(rustix::io::Errno::PIPE) => Ok(successor),
            Err(error) => {
                successor.abandon();
                Err(error.into())
            }
        }
    }

    fn send(&self, sockets: &[TcpListener]) -> rustix::io::Result<()> {
        for some in sockets.chunks(SOCKETS_A_MESSAGE) {
            let descriptors: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_A_MESSAGE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            rustix::net::sendmsg(&self.channel, &[IoSlice::new(SOCKETS)], &mut control, SendFlags::NOSIGNAL)?;
        }
        rustix::net::send(&self.channel, END, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A second handle on the conversation, to end it from another thread.
    ///
    /// # Errors
    ///
    /// When descriptors have run out.
    pub fn interrupter(&self) -> io::Result<Interrupter> {
        Ok(Interrupter(self.channel.try_clone()?))
    }

    /// Waits until it serves, a minute at most; ends it otherwise. Blocks.
    ///
    /// # Errors
    ///
    /// Why it does not serve.
    pub fn ready(mut self) -> Result<Self, String> {
        let mut answer = [0; MESSAGE_BYTES_MAX];
        let mut hear = || rustix::net::recv(&self.channel, &mut answer[..], RecvFlags::empty());
        let heard = match hear() {
            // It ended without having read what was sent to it: what it said comes next.
            Err(rustix::io::Errno::CONNRESET) => hear(),
            heard => heard,
        };
        let said = match heard {
            Ok((_, length)) => String::from_utf8_lossy(&answer[..length.min(MESSAGE_BYTES_MAX)]).into_owned(),
            Err(rustix::io::Errno::AGAIN) => {
                self.abandon();
                return Err(format!("it does not serve after {} s", READY_LIMIT.as_secs()));
            }
            Err(error) => error.to_string(),
        };
        if said.as_bytes() == READY {
            return Ok(self);
        }
        if let Some(reason) = said.strip_prefix(FAILED) {
            self.abandon();
            return Err(reason.to_owned());
        }
        // It closed the channel, by ending most likely.
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        Err(format!("it ended before it served ({status}); its log says why"))
    }

    fn abandon(mut self) {
        // One that has ended already cannot be killed, which is all that can be wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// See [`Successor::interrupter`].
#[derive(Debug)]
pub struct Interrupter(OwnedFd);

impl Interrupter {
    /// [`Successor::ready`] returns at once, and the new process ends.
    pub fn interrupt(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

/// In the new process: the one that serves still.
#[derive(Debug)]
pub struct Predecessor(OwnedFd);

impl Predecessor {
    /// The process that started this one to be followed by it, and its sockets; none after an ordinary start.
    ///
    /// # Errors
    ///
    /// When it does not give its sockets.
    pub fn greet() -> io::Result<Option<(Self, Vec<TcpListener>)>> {
        if !is_successor() {
            return Ok(None);
        }
        let channel = io::stdin().as_fd().try_clone_to_owned()?;
        set_socket_timeout(&channel, Timeout::Recv, Some(ANSWER_LIMIT))?;
        let mut sockets = Vec::new();
        while let Some(some) = receive(&channel)? {
            sockets.extend(some);
            if sockets.len() > SOCKETS_MAX {
                return Err(io::Error::other(format!("more than {SOCKETS_MAX} sockets are handed over")));
            }
        }
        set_socket_timeout(&channel, Timeout::Recv, None)?;
        Ok(Some((Self(channel), sockets)))
    }

    /// Tells it that this process serves.
    pub fn ready(&self) {
        if let Err(error) = rustix::net::send(&self.0, READY, SendFlags::NOSIGNAL) {
            // One that gives a new process up kills it: this one has died, and somebody must serve.
            tracing::warn!(%error, "the process before this one is no more");
        }
    }

    /// The same conversation, for another thread.
    ///
    /// # Errors
    ///
    /// When descriptors have run out.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Waits for its end. Blocks.
    pub fn until_ended(self) {
        // It says nothing any more: whatever comes is its end.
        while let Err(rustix::io::Errno::INTR) = rustix::net::recv(&self.0, &mut [0; 1][..], RecvFlags::empty()) {}
    }
}

/// Tells the process that started this one, if one did so to be followed, why it does not serve.
pub fn tell_failure(reason: &str) {
    if is_successor() {
        let mut message = format!("{FAILED}{reason}").into_bytes();
        message.truncate(MESSAGE_BYTES_MAX);
        // Nobody may listen any more; the reason is printed as well.
        let _ = rustix::net::send(io::stdin().as_fd(), &message, SendFlags::NOSIGNAL);
    }
}

/// Tells systemd, if it started this process, `READY=1` or whatever else: sd_notify(3).
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = notify_at(&path, state, Some(NOTIFY_MAX)) {
        tracing::warn!(%error, state, "systemd is not told");
    }
}

/// Tells systemd that this process lives (`WatchdogSec=`). To be called often: what cannot be told now is not waited for.
pub fn alive() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = notify_at(&path, "WATCHDOG=1", None) {
        tracing::debug!(%error, "systemd is not told that this process lives");
    }
}

/// `wait`: for a systemd that does not read at once; none: what does not go at once is lost.
fn notify_at(path: &OsString, state: &str, wait: Option<Duration>) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    match wait {
        Some(wait) => socket.set_write_timeout(Some(wait))?,
        None => socket.set_nonblocking(true)?,
    }
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// The variable names the process that gave it: one that this process starts for something else must not believe it.
fn is_successor() -> bool {
    let parent = std::os::unix::process::parent_id().to_string();
    std::env::var(PREDECESSOR).is_ok_and(|predecessor| predecessor == parent)
}

/// The descriptors of one message; none: that was all.
fn receive(channel: &OwnedFd) -> io::Result<Option<Vec<TcpListener>>> {
    let mut text = [0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_A_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut text)];
    let received = rustix::net::recvmsg(channel, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors.map(TcpListener::from));
        }
    }
    match text.get(..received.bytes) {
        Some(SOCKETS) if !sockets.is_empty() => Ok(Some(sockets)),
        Some(END) => Ok(None),
        _ => Err(io::Error::other("the process before this one did not hand over its sockets")),
    }
}

/// Names the process before, in the new one's environment.
const PREDECESSOR: &str = "SUN_UPGRADE_OF";

const SOCKETS: &[u8] = b"sockets";
const END: &[u8] = b"end";
const READY: &[u8] = b"ready";
const FAILED: &str = "failed ";

/// Descriptors in a message; the kernel takes 253.
const SOCKETS_A_MESSAGE: usize = 64;

/// Sockets that a process takes over: addresses times workers.
const SOCKETS_MAX: usize = 4096;

const MESSAGE_BYTES_MAX: usize = 4096;

/// How long a new process may take until it serves: reading topology, routes and purges.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long either side may take to send what it has at hand.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// That systemd may take to read what it is told once.
const NOTIFY_MAX: Duration = Duration::from_secs(2);
