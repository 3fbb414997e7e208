//! Bodies: how long they may be, packed and unpacked, and the RAM that all of them share.

use popularity_api::encoding;
use popularity_api::wire::DownloadsBatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{self, TOPOLOGY, furnish, token};
use crate::world::{World, batch, check_rating};

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_learns_it_whether_it_said_how_much_or_not() {
    let world = World::start_with(|config| config.limits.body_bytes_max = 8_000_000).await;
    for (size, announced) in [(8_000_001, true), (16_000_000, true), (8_000_001, false), (16_000_000, false)] {
        for _ in 0..3 {
            let mut stream = tokio::net::TcpStream::connect(world.running.listen).await.unwrap();
            let length =
                if announced { format!("content-length: {size}") } else { "transfer-encoding: chunked".into() };
            let head = format!(
                "POST /v1/links HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer {}\r\n{length}\r\n\r\n",
                token("backend")
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            if !announced {
                stream.write_all(format!("{size:x}\r\n").as_bytes()).await.unwrap();
            }
            stream.write_all(&vec![b' '; size]).await.unwrap();
            if !announced {
                stream.write_all(b"\r\n0\r\n\r\n").await.unwrap();
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 413"), "{size} bytes, announced: {announced}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_batch_counts_and_one_that_lies_does_not() {
    let world = World::start_with(|config| {
        config.limits.body_bytes_max = 1 << 20;
        config.limits.bodies_bytes_max = 3 << 20;
    })
    .await;
    let sun = world.client("sun4-1-1");
    assert!(sun.report_downloads(&batch(1, &[("c1/a", 0.01); 300])).await.unwrap().counted);
    check_rating(&world, 3.0).await;

    let json = |sequence: u64, spaces: usize| {
        let mut json = serde_json::to_vec(&batch(sequence, &[("c1/a", 3.0)])).unwrap();
        json.resize(json.len() + spaces, b' ');
        json
    };
    let cut = gzip(&json(4, 0)).split_last().unwrap().1.to_vec();
    for (encoding, body, status, says) in [
        ("gzip", gzip(&json(2, 0)), 200, ""),
        ("zstd", encoding::pack(&json(3, 500_000)).unwrap(), 200, ""),
        ("zstd", encoding::pack(&json(4, 64 << 20)).unwrap(), 413, "1048576 bytes"),
        ("gzip", gzip(&json(4, 64 << 20)), 413, "1048576 bytes"),
        ("zstd", json(4, 0), 400, "does not unpack"),
        ("gzip", cut, 400, "does not unpack"),
        ("br", json(4, 0), 415, "\"br\""),
        ("gzip, zstd", json(4, 0), 415, "more than one"),
        ("identity", json(4, 0), 200, ""),
    ] {
        let request = world.request("POST", "/v1/downloads", "sun4-1-1").header("content-encoding", encoding);
        let answer = request.body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{encoding} {says}");
        let accepted = answer.headers().get("accept-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(accepted.as_deref(), (status == 415).then_some("zstd, gzip"));
        let text = answer.text().await.unwrap();
        let detail = serde_json::from_str::<serde_json::Value>(&text).unwrap()["detail"].to_string();
        assert!(says.is_empty() || detail.replace('\\', "").contains(says), "{encoding}: {text}");
    }
    check_rating(&world, 12.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_packs_what_is_more_than_a_packet() {
    use axum::http::HeaderMap;
    let encoding = async |headers: HeaderMap, body: axum::body::Bytes| {
        let value = headers.get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        let refused = body.len() + usize::from(value.as_deref() == Some("zstd")) * 1_000_000;
        axum::Json(serde_json::json!({ "counted": true, "refused": refused }))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/v1/downloads", axum::routing::post(encoding));
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let folder = tempfile::tempdir().unwrap();
    furnish(folder.path());
    let client = fixture::client(address, folder.path(), "sun4-1-1");
    let seen = async |entries: usize| {
        let batch = batch(1, &vec![("c1/a", 1.0); entries]);
        (client.report_downloads(&batch).await.unwrap().refused, serde_json::to_vec(&batch).unwrap().len())
    };
    let (plain, json) = seen(5).await;
    assert_eq!(plain, json);
    let (packed, json) = seen(1000).await;
    assert!((1_000_000..1_000_000 + json / 10).contains(&packed), "{packed} of {json}");
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_body_unpacks_to_counts_for_the_ram_of_all_bodies() {
    let world = World::start_with(|config| {
        config.limits.body_bytes_max = 1 << 20;
        config.limits.bodies_bytes_max = 3 << 20;
        config.limits.request_s = 600;
    })
    .await;
    let call = async || {
        let body = encoding::pack(&vec![b' '; 900_000]).unwrap();
        let request = world.request("POST", "/v1/links", "backend").header("content-encoding", "zstd");
        request.body(body).send().await.unwrap()
    };
    assert_eq!(call().await.status().as_u16(), 400, "it fits: what is in it is another matter");
    // Two others are about to send as much as a call may: what is left does for it packed, and not unpacked.
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(world.running.listen).await.unwrap();
        let head = format!(
            "POST /v1/links HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            token("backend"),
            1 << 20
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        others.push(stream);
    }
    let mut answer = call().await;
    while answer.status().as_u16() == 400 {
        answer = call().await;
    }
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    drop(others);
    while answer.status().as_u16() == 429 {
        answer = call().await;
    }
    assert_eq!(answer.status().as_u16(), 400, "all of it was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_take_turns_in_the_ram_that_they_may_take() {
    let world = World::start_with(|config| {
        config.limits.body_bytes_max = 4096;
        config.limits.bodies_bytes_max = 3 * 4096;
        let sun = |n| {
            format!("[[sun]]\nname = \"sun4-1-{n}\"\naddresses = [\"192.0.2.{n}\"]\ninternal = \"10.4.1.{n}:8081\"\nweight = 100\n")
        };
        let suns: String = (10..30).map(sun).collect();
        std::fs::write(config.topology.file().unwrap(), format!("{TOPOLOGY}{suns}")).unwrap();
    })
    .await;
    let calls: Vec<_> = (10..30)
        .map(|n| {
            let client = world.client("operator");
            let batch = DownloadsBatch { source: format!("sun4-1-{n}"), ..batch(1, &[("c1/a", 1.0)]) };
            tokio::spawn(async move { client.report_downloads(&batch).await.unwrap().counted })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
    check_rating(&world, 20.0).await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}
