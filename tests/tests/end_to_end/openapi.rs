//! The popularity API called by its own description: generated questions, sound and unsound, whose answers have to be what
//! the document says (Schemathesis, <https://schemathesis.io>, installed by `tests/setup`).

use std::process::Command;

use tests::process;
use tests::settings::token;
use tests::world::{API, World};

#[tokio::test(flavor = "multi_thread")]
async fn the_popularity_api_does_what_its_document_says() {
    let world = World::with_api(&["sun1-1-1", "cache1-1"]);
    let api = world.start_with(API, |settings| {
        settings.log_level = "info".to_owned();
        // There is one to copy by the time that sequences of calls are tried.
        settings.more = "[snapshots]\nevery_s = 1\n".to_owned();
    });
    let api = api.await;
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi");
    let program = process::target_folder().join("schemathesis/bin/st");
    let mut command = Command::new(program);
    command
        .args(["--config-file", &format!("{here}/schemathesis.toml"), "run"])
        .arg(format!("http://{}/v1/openapi.json", world.api()))
        .args(["--header", &format!("Authorization: Bearer {}", token("operator"))])
        .args(["--checks", "all", "--request-timeout", "60"])
        .env("PYTHONPATH", here)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .current_dir(world.folder());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));

    // Every call was answered as a success as well, and none failed inside.
    let metrics = api.metrics().await;
    let document: serde_json::Value = serde_json::from_str(popularity_api::openapi::DOCUMENT).unwrap();
    for route in document["paths"].as_object().unwrap().keys() {
        let of = |status: &str| {
            metrics.sum("popularity_calls_total", &[&format!("route=\"{route}\""), &format!("status=\"{status}\"")])
        };
        assert!(of("200").is_some(), "{route} was never answered with 200");
        assert_eq!((of("500"), of("408")), (None, None), "{route}");
    }
}
