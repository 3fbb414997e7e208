//! The resolver over a geo server's table, for the regions of the topology as it is here.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{LOOK_EVERY, Resolver, ResolverError};
use crate::client::Server;
use crate::follow::Metrics;
use crate::regions::Regions;
use crate::table::Table;
use crate::topology::Watched;

/// Follows the server's table; see [`crate::follow::follow`].
pub(super) async fn follow(
    server: &Server,
    copy: Option<PathBuf>,
    topology: Watched,
    metrics: Metrics,
) -> Result<Arc<ArcSwap<Resolver>>, ResolverError> {
    let tables =
        crate::follow::follow(server, copy, metrics).await.map_err(|error| ResolverError(error.to_string()))?;
    let regions = Regions::of(&topology.borrow());
    let resolver = Resolver::new(Arc::clone(&tables.borrow()), regions);
    let shared = Arc::new(ArcSwap::from_pointee(resolver));
    tokio::spawn(run(tables, topology, Arc::downgrade(&shared)));
    Ok(shared)
}

/// Takes over whole tables and regions until nobody holds the resolver.
async fn run(mut tables: watch::Receiver<Arc<Table>>, mut topology: Watched, shared: Weak<ArcSwap<Resolver>>) {
    loop {
        tokio::select! {
            Ok(()) = tables.changed() => {}
            Ok(()) = topology.changed() => {}
            // Only to see whether somebody still holds it.
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let table = Arc::clone(&tables.borrow_and_update());
        let regions = Regions::of(&topology.borrow_and_update());
        let running = shared.load();
        if !Arc::ptr_eq(running.table(), &table) || running.regions != regions {
            shared.store(Arc::new(Resolver::new(table, regions)));
        }
    }
}
