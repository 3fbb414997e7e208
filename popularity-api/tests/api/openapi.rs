//! The document beside what a running API does.

use serde_json::Value;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_served_to_anybody() {
    let world = World::start().await;
    let answer = world.request("GET", "/v1/openapi.json", "").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/json".parse().unwrap())
    );
    let served: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(served, serde_json::from_str::<Value>(popularity_api::openapi::DOCUMENT).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_a_token_are_those_of_the_document() {
    let world = World::start().await;
    let document: Value = serde_json::from_str(popularity_api::openapi::DOCUMENT).unwrap();
    let mut calls = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let allowed: Vec<&str> =
                call["security"].as_array().unwrap().iter().map(|one| one["bearer"][0].as_str().unwrap()).collect();
            let path = path.replace("{region}", "4").replace("{cache}", "cache4-1").replace("{sequence}", "1");
            for (bearer, role) in [
                ("sun4-1-1", "sun"),
                ("cache4-1", "cache"),
                ("backend", "backend"),
                ("replica", "replica"),
                ("operator", "operator"),
                ("", "nobody"),
            ] {
                let (status, text) = world.call(&method.to_uppercase(), &path, bearer, "{}").await;
                let refused = if role == "nobody" { 401 } else { 403 };
                let expected = allowed.contains(&role) || allowed.is_empty();
                assert_eq!(status != refused, expected, "{method} {path} by {role}: {status} {text}");
                let documented = call["responses"].as_object().unwrap().contains_key(&status.to_string());
                assert!(documented, "{method} {path} by {role}: {status} is not in the document: {text}");
                calls += 1;
            }
        }
    }
    assert!(calls >= 50, "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_refused_is_a_problem() {
    let world = World::start_with(|config| config.limits.body_bytes_max = 1024).await;
    let long = "x".repeat(2000);
    for (method, path, bearer, body, status) in [
        ("GET", "/", "", "", 404),
        ("DELETE", "/v1/links", "", "", 405),
        ("POST", "/v1/links", "", "", 401),
        ("POST", "/v1/links", "sun4-1-1", "", 403),
        ("POST", "/v1/links", "backend", "{", 400),
        ("POST", "/v1/links", "backend", &long, 413),
        ("GET", "/v1/regions/%ff/top", "backend", "", 400),
        ("POST", "/v1/regions/4/caches/%ff/wanted", "operator", "", 400),
    ] {
        let answer = world.request(method, path, bearer).body(body.to_owned()).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{method} {path}");
        let problem: popularity_api::wire::Problem = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(problem.status, status);
        assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{method} {path}: {problem:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_timed_by_route() {
    let world = World::start().await;
    world.call("GET", "/v1/regions/4/top", "backend", "").await;
    let metrics = world.metrics().await;
    let line = "popularity_call_seconds_count{route=\"/v1/regions/{region}/top\"} 1";
    assert!(metrics.lines().any(|other| other == line), "{metrics}");
}
