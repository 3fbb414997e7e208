//! The public conformance suite for HTTP caches: what passed must pass.

use tests::conformance::{self, Baseline, Bench, Suite};

#[tokio::test(flavor = "multi_thread")]
async fn what_passed_in_the_conformance_suite_passes() {
    let mut bench = Bench::start(Suite::package().unwrap()).await.unwrap();
    let baseline = Baseline::load().unwrap();
    let judged = conformance::run_against(&bench, &baseline).await.unwrap();
    assert_eq!(bench.origin_ended(), None, "the suite's content server");
    let found = baseline.compare(&judged);
    println!("{}", conformance::score(&judged));
    println!("newly passing, for `tests/conformance --update`: {:?}", found.risen);
    for test in judged.iter().filter(|test| found.fallen.contains(&test.id)) {
        println!("{}: {}", test.id, test.thrown);
    }
    assert!(found.fallen.is_empty(), "they passed before: {:?}", found.fallen);
    assert!(found.gone.is_empty(), "they were not run: {:?}", found.gone);
}
