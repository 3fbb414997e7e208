//! Listening sockets that outlive a process: a new one takes them over ([`crate::upgrade`]), or systemd holds them
//! (`sd_listen_fds(3)`: `LISTEN_FDS`, `LISTEN_PID`).
//!
//! ```text
//!   systemd, LISTEN_FDS --+                            +--> accept loops
//!                         +--> inherited --take---+    |
//!   the process before ---+                       +----+--> kept: what the next process gets
//!                                  bind ----------+
//! ```
//!
//! A socket belongs to the address it is bound to; nothing else is known of it. Whoever wants to listen somewhere takes all
//! sockets of that address that were inherited, and binds only when there are none. All of them: each has a queue of its
//! own of connections that nobody has accepted yet, and what is closed loses them.
//!
//! A socket that is bound to a free port (port 0 in a config) is no use to the next process, which does not know the port:
//! that asks for a new one.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// See the module's doc. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sockets(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    inherited: Vec<TcpListener>,
    kept: Vec<TcpListener>,
    /// Nobody listens any more.
    closed: bool,
}

impl Sockets {
    /// Takes over what systemd or the process before opened.
    ///
    /// # Errors
    ///
    /// When one of them is no socket any more.
    pub fn inherit(&self, listeners: Vec<TcpListener>) -> io::Result<()> {
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        self.state().inherited.extend(listeners);
        Ok(())
    }

    /// A listener of an address, which does not block: one that was inherited, or a new one.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub fn listener(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = match self.take(address).pop() {
            Some(inherited) => inherited,
            None => bind(address)?,
        };
        self.keep(&listener)?;
        Ok(listener)
    }

    /// All inherited sockets of an address; none: it is to be bound. What is used of it is to be kept as well.
    #[must_use]
    pub fn take(&self, address: SocketAddr) -> Vec<TcpListener> {
        let mut state = self.state();
        let (taken, left) = std::mem::take(&mut state.inherited)
            .into_iter()
            .partition(|listener| listener.local_addr().is_ok_and(|bound| bound == address));
        state.inherited = left;
        taken
    }

    /// Remembers a socket for the next process.
    ///
    /// # Errors
    ///
    /// When descriptors have run out.
    pub fn keep(&self, listener: &TcpListener) -> io::Result<()> {
        let copy = listener.try_clone()?;
        let mut state = self.state();
        if !state.closed {
            state.kept.push(copy);
        }
        Ok(())
    }

    /// Closes what was inherited and is not listened at any more; for the end of a start.
    pub fn drop_unclaimed(&self) {
        let unclaimed = std::mem::take(&mut self.state().inherited);
        for address in unclaimed.iter().filter_map(|listener| listener.local_addr().ok()) {
            tracing::warn!(%address, "a listening socket was handed over that this config does not name: it is closed");
        }
    }

    /// Copies of all sockets, for the next process.
    ///
    /// # Errors
    ///
    /// When descriptors have run out.
    pub fn copies(&self) -> io::Result<Vec<TcpListener>> {
        self.state().kept.iter().map(TcpListener::try_clone).collect()
    }

    /// This process does not listen any more: copies must not keep connections waiting for nobody.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.kept.clear();
        state.inherited.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Two lists are whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sockets that systemd opened for this process, if it did. Changes the environment: to be called while there is one
/// thread.
///
/// # Errors
///
/// When one of them is no TCP listener.
pub fn of_systemd() -> io::Result<Vec<TcpListener>> {
    let mut given = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..given.len() {
        sockets.extend(given.take_tcp_listener(at)?);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    // It sets SO_REUSEADDR: a restart must not wait for old connections to be forgotten.
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_connection_that_waits_is_accepted_by_the_next_process() {
        let (before, after) = (Sockets::default(), Sockets::default());
        let listener = before.listener(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        after.inherit(before.copies().unwrap()).unwrap();
        before.close();
        drop(listener);
        let next = after.listener(address).unwrap();
        next.set_nonblocking(false).unwrap();
        let (mut accepted, _) = next.accept().unwrap();
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[test]
    fn only_sockets_of_the_address_are_taken_and_all_of_them() {
        let sockets = Sockets::default();
        let (one, other) = (TcpListener::bind(ANY).unwrap(), TcpListener::bind(ANY).unwrap());
        let (here, there) = (one.local_addr().unwrap(), other.local_addr().unwrap());
        sockets.inherit(vec![one.try_clone().unwrap(), other, one]).unwrap();
        assert_eq!(sockets.take(here).len(), 2);
        assert_eq!(sockets.take(here).len(), 0);
        assert_eq!(sockets.take(there).len(), 1);
    }

    #[test]
    fn nobody_listens_after_the_end() {
        let sockets = Sockets::default();
        let listener = sockets.listener(ANY).unwrap();
        let address = listener.local_addr().unwrap();
        let unclaimed = TcpListener::bind(ANY).unwrap();
        let nobody = unclaimed.local_addr().unwrap();
        sockets.inherit(vec![unclaimed]).unwrap();
        assert!(TcpStream::connect(nobody).is_ok());
        sockets.drop_unclaimed();
        assert!(TcpStream::connect(nobody).is_err());
        sockets.close();
        assert!(TcpStream::connect(address).is_ok(), "whoever accepts has it still");
        drop(listener);
        assert!(TcpStream::connect(address).is_err());
        let late = sockets.listener(ANY).unwrap();
        assert_eq!(sockets.copies().unwrap().len(), 0);
        drop(late);
    }
}
