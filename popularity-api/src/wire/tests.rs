//! Every body as it goes over the wire. Servers of two versions talk to each other: a change here needs a reason.

use std::fmt::Debug;
use std::net::IpAddr;

use geo::{RegionId, Scheme};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

#[test]
fn reports_of_downloads_are_written_like_this() {
    let download =
        Download { region: RegionId(4), file: "c1/a.jpg".to_owned(), size: 2048, downloads: 1.5, bytes: 3072 };
    check(
        &DownloadsBatch { source: "sun4-1-1".to_owned(), boot: 7, sequence: 1, age_ms: 900, downloads: vec![download] },
        r#"{"source":"sun4-1-1","boot":7,"sequence":1,"age_ms":900,"downloads":[{"region":4,"file":"c1/a.jpg","size":2048,"downloads":1.5,"bytes":3072}]}"#,
    );
    let ack = DownloadsAck { counted: true, refused: 0, refusals: vec![], sample: 0.25 };
    check(&ack, r#"{"counted":true,"refused":0,"sample":0.25}"#);
    let refused = RefusedEntry { index: 7, file: "c1//a".to_owned(), why: "file: it is not".to_owned() };
    check(
        &DownloadsAck { counted: true, refused: 1, refusals: vec![refused], sample: 1.0 },
        r#"{"counted":true,"refused":1,"refusals":[{"index":7,"file":"c1//a","why":"file: it is not"}],"sample":1.0}"#,
    );
}

#[test]
fn ratings_are_written_like_this() {
    let rated = Rated { file: "c1/a.jpg".to_owned(), size: 2048, score: 7100.5, rating_hour: 1.0, rating_days: 40.25 };
    check(
        &Top { region: RegionId(4), files: vec![rated] },
        r#"{"region":4,"files":[{"file":"c1/a.jpg","size":2048,"score":7100.5,"rating_hour":1.0,"rating_days":40.25}]}"#,
    );
}

#[test]
fn hot_files_are_written_like_this() {
    let hot = HotNow {
        file: "c1/a.jpg".to_owned(),
        requests_per_second: 120.5,
        bits_per_second: 2e6,
        spread: 2,
        suns: vec!["sun4-1-2".to_owned(), "sun4-1-1".to_owned()],
    };
    check(
        &Hot { region: RegionId(4), files: vec![hot] },
        r#"{"region":4,"files":[{"file":"c1/a.jpg","requests_per_second":120.5,"bits_per_second":2000000.0,"spread":2,"suns":["sun4-1-2","sun4-1-1"]}]}"#,
    );
}

#[test]
fn fetches_are_written_like_this() {
    check(
        &FetchNote { file: "c1/a.jpg".to_owned(), size: 2048, state: FetchState::Begins },
        r#"{"file":"c1/a.jpg","size":2048,"state":"begins"}"#,
    );
    check(
        &FetchNote { file: "c1/a.jpg".to_owned(), size: 2048, state: FetchState::Failed },
        r#"{"file":"c1/a.jpg","size":2048,"state":"failed"}"#,
    );
    check(&FetchAnswer { fetching: Some("cache4-1".to_owned()) }, r#"{"fetching":"cache4-1"}"#);
    check(&FetchAnswer { fetching: None }, r#"{"fetching":null}"#);
}

#[test]
fn what_caches_ask_and_tell_is_written_like_this() {
    check(&WantedRequest { bytes_max: 1000, limit: 10 }, r#"{"bytes_max":1000,"limit":10}"#);
    check(
        &Wanted {
            candidates: vec![Candidate {
                file: "c1/a.jpg".to_owned(),
                size: 2048,
                score: 7100.5,
                sources: vec!["cache5-1".to_owned()],
            }],
            held: vec![HeldScore { file: "c1/b.jpg".to_owned(), score: -1.5 }],
            holdings_generation: 9,
        },
        r#"{"candidates":[{"file":"c1/a.jpg","size":2048,"score":7100.5,"sources":["cache5-1"]}],"held":[{"file":"c1/b.jpg","score":-1.5}],"holdings_generation":9}"#,
    );
    check(
        &HoldingsReport {
            generation: 9,
            since: Some(8),
            added: vec![Held { file: "c1/a.jpg".to_owned(), size: 2048 }],
            removed: vec!["c1/b.jpg".to_owned()],
        },
        r#"{"generation":9,"since":8,"added":[{"file":"c1/a.jpg","size":2048}],"removed":["c1/b.jpg"]}"#,
    );
    check(&HoldingsAck { generation: 9 }, r#"{"generation":9}"#);
}

#[test]
fn purges_are_written_like_this() {
    let request = PurgeRequest {
        id: "a-1".to_owned(),
        what: PurgeWhat::Prefix,
        value: "c1/a/".to_owned(),
        mode: PurgeMode::Soft,
        region: Some(RegionId(4)),
    };
    check(&request, r#"{"id":"a-1","what":"prefix","value":"c1/a/","mode":"soft","region":4}"#);
    check(&PurgeAck { sequence: 7, note: None }, r#"{"sequence":7}"#);
    let purge = Purge {
        sequence: 7,
        at_ms: 5,
        id: "a-2".to_owned(),
        what: PurgeWhat::File,
        value: "c1/a.jpg".to_owned(),
        mode: PurgeMode::Hard,
        region: None,
    };
    check(
        &PurgeLog { latest: 9, floor: Some(6), purges: vec![purge] },
        r#"{"latest":9,"floor":6,"purges":[{"sequence":7,"at_ms":5,"id":"a-2","what":"file","value":"c1/a.jpg","mode":"hard","region":null}]}"#,
    );
    let server = |name: &str, state, applied| PurgeServer { server: name.to_owned(), state, applied };
    let servers = vec![
        server("cache4-1", PurgeState::Applied, Some(7)),
        server("sun4-1-1", PurgeState::Waiting, Some(6)),
        server("sun4-1-2", PurgeState::Silent, None),
    ];
    check(
        &PurgeAcknowledgements { sequence: 7, servers },
        r#"{"sequence":7,"servers":[{"server":"cache4-1","state":"applied","applied":7},{"server":"sun4-1-1","state":"waiting","applied":6},{"server":"sun4-1-2","state":"silent","applied":null}]}"#,
    );
    let direct = DirectPurge {
        id: "a-3".to_owned(),
        number: 2,
        what: PurgeWhat::Tag,
        value: "news".to_owned(),
        mode: PurgeMode::Hard,
    };
    check(&direct, r#"{"id":"a-3","number":2,"what":"tag","value":"news","mode":"hard"}"#);
    check(&PurgeMark { log: 9, direct: 2 }, r#"{"log":9,"direct":2}"#);
}

#[test]
fn links_are_written_like_this() {
    check(
        &LinksRequest {
            client: IpAddr::from([192, 0, 2, 7]),
            files: vec!["c1/a.jpg".to_owned()],
            scheme: Scheme::Https,
            explain: true,
        },
        r#"{"client":"192.0.2.7","files":["c1/a.jpg"],"scheme":"https","explain":true}"#,
    );
    let explanation = Explanation {
        evidence: "default".to_owned(),
        region: RegionId(4),
        suns: vec!["sun4-1-1".to_owned()],
        holders: vec!["cache4-1".to_owned()],
        spread: 1,
        reason: "owner".to_owned(),
        signed: Some(SignedBy { key: "b".to_owned(), expires_s: 1_893_456_000, covers: "file".to_owned() }),
    };
    let link = Link {
        file: "c1/a.jpg".to_owned(),
        url: Some("https://sun4-1-1.example.org/c1/a.jpg".to_owned()),
        server: Some("sun4-1-1".to_owned()),
        error: None,
        explain: Some(explanation),
    };
    let none = Link { file: "x".to_owned(), url: None, server: None, error: Some("no file".to_owned()), explain: None };
    check(
        &Links { regions: vec![RegionId(4), RegionId(5)], links: vec![link, none] },
        r#"{"regions":[4,5],"links":[{"file":"c1/a.jpg","url":"https://sun4-1-1.example.org/c1/a.jpg","server":"sun4-1-1","explain":{"evidence":"default","region":4,"suns":["sun4-1-1"],"holders":["cache4-1"],"spread":1,"reason":"owner","signed":{"key":"b","expires_s":1893456000,"covers":"file"}}},{"file":"x","url":null,"server":null,"error":"no file"}]}"#,
    );
}

#[test]
fn holders_are_written_like_this() {
    let holder = Holder { region: RegionId(4), cache: "cache4-1".to_owned(), linked: true };
    check(
        &HeldBy { file: "c1/a.jpg".to_owned(), caches: vec![holder] },
        r#"{"file":"c1/a.jpg","caches":[{"region":4,"cache":"cache4-1","linked":true}]}"#,
    );
}

#[test]
fn status_is_written_like_this() {
    let load = Load { bits_per_second: 1e9, requests_per_second: 2.5, connections: 3, cpu_pressure: 0.5 };
    check(
        &StatusReport {
            server: "sun4-1-1".to_owned(),
            topology_version: 3,
            healthy: true,
            load,
            tiers: vec![Tier { name: "ram".to_owned(), bytes: 1, bytes_max: 2, hits: 3 }],
            hottest: vec![HotRate { file: "c1/a.jpg".to_owned(), requests_per_second: 1.5, bits_per_second: 8.0 }],
            holdings_known: vec![CacheGeneration { cache: "cache4-1".to_owned(), generation: 9 }],
            rest: None,
        },
        r#"{"server":"sun4-1-1","topology_version":3,"healthy":true,"load":{"bits_per_second":1000000000.0,"requests_per_second":2.5,"connections":3,"cpu_pressure":0.5},"tiers":[{"name":"ram","bytes":1,"bytes_max":2,"hits":3}],"hottest":[{"file":"c1/a.jpg","requests_per_second":1.5,"bits_per_second":8.0}],"holdings_known":[{"cache":"cache4-1","generation":9}]}"#,
    );
    check(
        &StatusReport { rest: Some(0.75), ..StatusReport::default() },
        r#"{"server":"","topology_version":0,"healthy":false,"load":{"bits_per_second":0.0,"requests_per_second":0.0,"connections":0,"cpu_pressure":0.0},"tiers":[],"hottest":[],"holdings_known":[],"rest":0.75}"#,
    );
    let now = ServerNow {
        state: ServerState { name: "sun4-1-1".to_owned(), healthy: true, load, busy: 1.5, rest: Some(0.5) },
        tiers: vec![Tier { name: "ram".to_owned(), bytes: 1, bytes_max: 2, hits: 3 }],
        topology_version: 3,
    };
    check(
        &Servers { region: RegionId(4), servers: vec![now] },
        r#"{"region":4,"servers":[{"state":{"name":"sun4-1-1","healthy":true,"load":{"bits_per_second":1000000000.0,"requests_per_second":2.5,"connections":3,"cpu_pressure":0.5},"busy":1.5,"rest":0.5},"tiers":[{"name":"ram","bytes":1,"bytes_max":2,"hits":3}],"topology_version":3}]}"#,
    );
    check(
        &RegionState {
            servers: vec![ServerState { name: "sun4-1-1".to_owned(), healthy: true, load, busy: 1.5, rest: None }],
            hot: vec![HotFile { file: "c1/a.jpg".to_owned(), spread: 2 }],
            holdings: vec![HoldingsDelta {
                cache: "cache4-1".to_owned(),
                generation: 9,
                since: None,
                added: vec!["00000000000000ff".to_owned()],
                removed: Vec::new(),
            }],
            topology_version: 3,
        },
        r#"{"servers":[{"name":"sun4-1-1","healthy":true,"load":{"bits_per_second":1000000000.0,"requests_per_second":2.5,"connections":3,"cpu_pressure":0.5},"busy":1.5}],"hot":[{"file":"c1/a.jpg","spread":2}],"holdings":[{"cache":"cache4-1","generation":9,"since":null,"added":["00000000000000ff"],"removed":[]}],"topology_version":3}"#,
    );
}

#[test]
fn problems_are_written_like_this() {
    check(
        &Problem { title: "Not Found".to_owned(), status: 404, detail: "no region 9".to_owned() },
        r#"{"title":"Not Found","status":404,"detail":"no region 9"}"#,
    );
}

#[test]
fn unknown_fields_are_refused_in_questions_and_passed_over_in_answers() {
    check_read::<WantedRequest>(r#"{"bytes_max":1,"limit":1,"more":1}"#, false);
    check_read::<HoldingsReport>(r#"{"generation":1,"since":null,"added":[],"removed":[],"more":1}"#, false);
    check_read::<DownloadsBatch>(r#"{"source":"a","boot":1,"sequence":1,"downloads":[],"more":1}"#, false);
    check_read::<DownloadsBatch>(r#"{"source":"a","boot":1,"sequence":1,"downloads":[]}"#, true);
    check_read::<LinksRequest>(r#"{"client":"::1","files":[],"more":1}"#, false);
    check_read::<LinksRequest>(r#"{"client":"::1","files":[]}"#, true);
    check_read::<HoldingsAck>(r#"{"generation":1,"more":1}"#, true);
    check_read::<DownloadsAck>(r#"{"counted":true,"refused":0,"more":1}"#, true);
    check_read::<Top>(r#"{"region":4,"files":[],"more":1}"#, true);
}

#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), expected);
    assert_eq!(&serde_json::from_str::<T>(expected).unwrap(), value);
    crate::openapi::tests::check_body::<T>(expected);
}

#[track_caller]
fn check_read<T: DeserializeOwned>(text: &str, expected: bool) {
    assert_eq!(serde_json::from_str::<T>(text).is_ok(), expected, "{text}");
}
