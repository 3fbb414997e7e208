//! Turns a [`Script`] and a request into a response, body included.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;

use super::script::{Declared, Gate, Script};
use crate::pattern::Pattern;

/// What one request gets.
#[derive(Clone, Debug)]
pub(super) struct Scripted {
    pub(super) script: Script,
    pub(super) pattern: Pattern,
    pub(super) dies_at: Option<u64>,
    pub(super) head_gate: Option<Gate>,
}

/// The response to a request.
pub(super) fn to(request: &Request<Incoming>, scripted: Option<Scripted>) -> Response<Frames> {
    let Some(scripted) = scripted else {
        return short(StatusCode::NOT_FOUND);
    };
    let script = &scripted.script;
    if script.status != 200 {
        return short(StatusCode::from_u16(script.status).expect("a status"));
    }
    if let Some(name) = &script.echoes {
        return echo(script, request.headers().get(name));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD && !script.any_method {
        return short(StatusCode::METHOD_NOT_ALLOWED);
    }
    if header_of(request.headers(), &header::IF_NONE_MATCH) == Some(script.etag()) {
        return head(script, StatusCode::NOT_MODIFIED, None).body(Frames::none()).expect("a response");
    }
    let part = match part(request.headers(), script) {
        Ok(part) => part,
        Err(()) => {
            let range = format!("bytes */{}", script.size);
            let response = Response::builder().status(416).header(header::CONTENT_RANGE, range);
            return response.body(Frames::none()).expect("a response");
        }
    };
    let status = if part.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let response = head(script, status, part.as_ref());
    let body = if request.method() == Method::HEAD {
        Frames::none()
    } else {
        let part = part.unwrap_or(0..script.size);
        let (sender, frames) = mpsc::channel(1);
        tokio::spawn(send(scripted, part, sender));
        Frames { frames: Some(frames) }
    };
    response.body(body).expect("a response")
}

fn echo(script: &Script, said: Option<&HeaderValue>) -> Response<Frames> {
    let body = said.map_or_else(Bytes::new, |said| Bytes::copy_from_slice(said.as_bytes()));
    let mut response = Response::builder().header(header::CONTENT_LENGTH, body.len());
    for (name, value) in &script.headers {
        response = response.header(name, value);
    }
    let (sender, frames) = mpsc::channel(1);
    // The channel is empty and has room for one.
    let _ = sender.try_send(Ok(body));
    response.body(Frames { frames: Some(frames) }).expect("a response")
}

fn short(status: StatusCode) -> Response<Frames> {
    Response::builder().status(status).header(header::CONTENT_LENGTH, 0).body(Frames::none()).expect("a response")
}

fn head(script: &Script, status: StatusCode, part: Option<&Range<u64>>) -> hyper::http::response::Builder {
    let mut response = Response::builder()
        .status(status)
        .header(header::ETAG, script.etag())
        .header(header::LAST_MODIFIED, LAST_MODIFIED)
        .header(header::CONTENT_TYPE, "image/jpeg");
    if let Some(part) = part {
        let range = format!("bytes {}-{}/{}", part.start, part.end - 1, script.size);
        response = response.header(header::CONTENT_RANGE, range);
    }
    if script.ranges {
        response = response.header(header::ACCEPT_RANGES, "bytes");
    }
    let length = part.map_or(script.size, |part| part.end - part.start);
    let declared = match script.declared {
        Declared::True => Some(length),
        Declared::Off(more) => Some(length.saturating_add_signed(more)),
        Declared::Unknown => None,
    };
    if let Some(declared) = declared.filter(|_| status != StatusCode::NOT_MODIFIED) {
        response = response.header(header::CONTENT_LENGTH, declared);
    }
    for (name, value) in &script.headers {
        let name = HeaderName::try_from(name).expect("a header name");
        response = response.header(name, HeaderValue::from_str(value).expect("a header value"));
    }
    response
}

/// The part that is asked for: of one range, and only if `If-Range` names this version.
fn part(headers: &HeaderMap, script: &Script) -> Result<Option<Range<u64>>, ()> {
    let asked = header_of(headers, &header::RANGE).filter(|_| script.ranges);
    let unchanged = header_of(headers, &header::IF_RANGE)
        .is_none_or(|validator| validator == script.etag() || validator == LAST_MODIFIED);
    let Some(asked) = asked.filter(|_| unchanged) else { return Ok(None) };
    let Some((first, last)) = asked.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Ok(None);
    };
    let size = script.size;
    let part = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) => first..size,
        (Err(_), Ok(length)) => size.saturating_sub(length)..size,
        (Err(_), Err(_)) => return Ok(None),
    };
    if part.start < part.end { Ok(Some(part)) } else { Err(()) }
}

fn header_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// Sends the bytes of `part` as the script says. Ends early when nobody reads any more.
async fn send(scripted: Scripted, part: Range<u64>, sender: mpsc::Sender<Result<Bytes, Broken>>) {
    let Scripted { script, pattern, dies_at, .. } = scripted;
    let mut at = part.start;
    while at < part.end {
        if dies_at.is_some_and(|death| at >= death) {
            let _ = sender.send(Err(Broken)).await;
            return;
        }
        if let Some((offset, gate)) = &script.gate
            && at >= *offset
        {
            gate.pass().await;
        }
        // Chunks end where something is to happen.
        let stops = [dies_at, script.gate.as_ref().map(|(offset, _)| *offset)];
        let stop = stops.into_iter().flatten().filter(|&stop| stop > at).fold(part.end, u64::min);
        let tenth = script.bytes_per_second.map_or(CHUNK, |rate| (rate / 10).max(1));
        let length = usize::try_from((stop - at).min(tenth)).expect("a chunk");
        if script.bytes_per_second.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if sender.send(Ok(Bytes::from(pattern.bytes(at, length)))).await.is_err() {
            return;
        }
        at += length as u64;
    }
}

/// A body that is sent by a task.
#[derive(Debug)]
pub(super) struct Frames {
    frames: Option<mpsc::Receiver<Result<Bytes, Broken>>>,
}

impl Frames {
    const fn none() -> Self {
        Self { frames: None }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Some(frames) = &mut self.frames else {
            return Poll::Ready(None);
        };
        frames.poll_recv(context).map(|next| next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }
}

/// The script breaks the connection here.
#[derive(Debug)]
pub(super) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken by the script")
    }
}

impl std::error::Error for Broken {}

const LAST_MODIFIED: &str = "Sun, 01 Nov 2026 10:00:00 GMT";
const CHUNK: u64 = 64 * 1024;
