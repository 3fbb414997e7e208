//! Waiting for something to become so: asked again and again until a deadline, never a fixed sleep.

use std::time::{Duration, Instant};

/// How long anything here may take before a test gives up, on a machine that builds something else beside it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks until there is an answer, and returns it with the time that took.
///
/// # Panics
///
/// After [`DEADLINE`], naming `what` was waited for.
#[track_caller]
pub fn until<T, F, A>(what: &str, mut ask: F) -> impl Future<Output = (T, Duration)> + use<T, F, A>
where
    F: FnMut() -> A,
    A: Future<Output = Option<T>>,
{
    let (what, caller) = (what.to_owned(), std::panic::Location::caller());
    async move {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return (answer, began.elapsed());
            }
            assert!(began.elapsed() < DEADLINE, "{caller}: not within {} s: {what}", DEADLINE.as_secs());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// As [`until`], for a condition that is simply true or not; returns how long it took.
///
/// # Panics
///
/// As [`until`].
#[track_caller]
pub fn until_true<F, A>(what: &str, mut ask: F) -> impl Future<Output = Duration> + use<F, A>
where
    F: FnMut() -> A,
    A: Future<Output = bool>,
{
    let answer = until(what, move || {
        let asked = ask();
        async move { asked.await.then_some(()) }
    });
    async move { answer.await.1 }
}

/// Gives up on something that must end by itself.
///
/// # Panics
///
/// After [`DEADLINE`], naming `what` did not end.
#[track_caller]
pub fn within<A: Future>(what: &str, action: A) -> impl Future<Output = A::Output> + use<A> {
    let (what, caller) = (what.to_owned(), std::panic::Location::caller());
    async move {
        match tokio::time::timeout(DEADLINE, action).await {
            Ok(output) => output,
            Err(_) => panic!("{caller}: not within {} s: {what}", DEADLINE.as_secs()),
        }
    }
}
