//! The end of the sun's process, noticed at once: a pidfd is readable from then on (pidfd_open(2)).
//!
//! Each report names the process that answered. After an upgrade that is another one, and the end of the one before means
//! nothing. Where processes cannot be watched (another pid namespace, an old kernel) the next probe notices.
//!
//! Why a thread for each: tokio takes descriptors of other kinds than sockets only by unsafe calls. It ends with its
//! process, and there are as many as processes of the sun at once: mostly one.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::{mpsc, watch};

use super::start::Heard;

/// Tells of the end of the process that `pids` named last, until nobody listens or nobody names any.
pub async fn watch(mut pids: watch::Receiver<u32>, heard: mpsc::Sender<Heard>) {
    let (ended, mut ends) = mpsc::channel(ENDS_MAX);
    loop {
        tokio::select! {
            changed = pids.changed() => {
                if changed.is_err() {
                    return;
                }
                let pid = *pids.borrow_and_update();
                match follow(pid, ended.clone()) {
                    Ok(()) => {}
                    // It ended before it could be watched, or is not of this pid namespace: a probe more does no harm.
                    Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                        // Never full: there are as many as processes at once.
                        let _ = ended.try_send(pid);
                    }
                    Err(error) => tracing::debug!(pid, %error, "the sun's process cannot be watched"),
                }
            }
            Some(pid) = ends.recv() => {
                if pid == *pids.borrow() {
                    tracing::info!(pid, "the sun's process ended");
                    if heard.send(Heard::Ended).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Begins to wait for the end of a process.
fn follow(pid: u32, ended: mpsc::Sender<u32>) -> io::Result<()> {
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    let descriptor = pidfd_open(known, PidfdFlags::empty())?;
    let wait = move || {
        if until_readable(&descriptor).is_ok() {
            // Nobody listens when this daemon ends.
            let _ = ended.blocking_send(pid);
        }
    };
    std::thread::Builder::new().name("pidfd".to_owned()).spawn(wait).map(drop)
}

fn until_readable(descriptor: &OwnedFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends that may wait to be heard.
const ENDS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn the_end_of_the_process_named_last_is_told() {
        let sleep = || Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut old, mut new) = (sleep(), sleep());
        let (named, pids) = watch::channel(0);
        let (sender, mut heard) = mpsc::channel(4);
        let watching = tokio::spawn(watch(pids, sender));
        named.send(old.id()).unwrap();
        tokio::task::yield_now().await;
        named.send(new.id()).unwrap();
        old.kill().unwrap();
        old.wait().unwrap();
        new.kill().unwrap();
        new.wait().unwrap();
        assert!(matches!(heard.recv().await, Some(Heard::Ended)));
        drop(named);
        watching.await.unwrap();
        assert!(heard.recv().await.is_none(), "the end of the one before means nothing");
    }
}
