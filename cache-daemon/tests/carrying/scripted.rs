//! Servers that answer as a test says, over real sockets, and remember what they were asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `GET /path`.
    pub line: String,
    /// Field lines in lower case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What is answered.
pub(crate) enum Answer {
    /// Status, field lines (`content-length` is added) and body.
    Whole(u16, String, Vec<u8>),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, ever.
    Silence,
}

/// A server that runs until the test ends.
#[derive(Clone)]
pub(crate) struct Scripted {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;

impl Scripted {
    pub(crate) async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, asked: Arc::default() };
        let (asked, script): (_, Arc<Script>) = (Arc::clone(&server.asked), Arc::new(script));
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(converse(connection, Arc::clone(&asked), Arc::clone(&script)));
            }
        });
        server
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    /// Request lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|request| request.line).collect()
    }
}

async fn converse(mut connection: TcpStream, asked: Arc<Mutex<Vec<Request>>>, script: Arc<Script>) {
    while let Some(request) = read(&mut connection).await {
        asked.lock().unwrap().push(request.clone());
        match script(&request) {
            Answer::Whole(status, fields, body) => {
                let head = format!("HTTP/1.1 {status} x\r\n{fields}content-length: {}\r\n\r\n", body.len());
                if connection.write_all(head.as_bytes()).await.is_err() || connection.write_all(&body).await.is_err() {
                    return;
                }
            }
            Answer::Raw(bytes) => {
                drop(connection.write_all(&bytes).await);
                return;
            }
            Answer::Silence => std::future::pending().await,
        }
    }
}

async fn read(connection: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut body = bytes.split_off(end + 4);
    let (line, head) = head.split_once("\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|field| field.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        if connection.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { line: line.strip_suffix(" HTTP/1.1").unwrap().to_owned(), head, body })
}

/// A whole 200.
pub(crate) fn found(body: &[u8]) -> Answer {
    Answer::Whole(200, "content-type: image/png\r\netag: \"1\"\r\nset-cookie: a=b\r\n".to_owned(), body.to_vec())
}

/// A 404.
pub(crate) fn missing() -> Answer {
    Answer::Whole(404, String::new(), b"not found".to_vec())
}
